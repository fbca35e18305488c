// Sends one frame to segmentd and saves its labels: ADDRESS MODEL FRAME HEIGHT WIDTH DATATYPE LABELS.
//
// FRAME holds the values row by row, little endian, DATATYPE is UINT8, UINT16, INT16, UINT32 or FP32; LABELS gets a
// byte for each pixel. The daemon needs `[open_inference] enabled = true`.

using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;
using Inference;

if (args.Length != 7)
{
    Console.Error.WriteLine("usage: ADDRESS MODEL FRAME HEIGHT WIDTH DATATYPE LABELS");
    return 2;
}

var image = new ModelInferRequest.Types.InferInputTensor
{
    Name = "image",
    Datatype = args[5],
    Shape = { long.Parse(args[3]), long.Parse(args[4]) },
};
var request = new ModelInferRequest
{
    ModelName = args[1],
    Inputs = { image },
    RawInputContents = { ByteString.CopyFrom(File.ReadAllBytes(args[2])) },
    Parameters = { ["min_confidence"] = new InferParameter { Int64Param = 50 } },
};

// Labels and confidence come in one message. Beyond this machine, the address begins with https.
var options = new GrpcChannelOptions { MaxReceiveMessageSize = 512 << 20 };
using var channel = GrpcChannel.ForAddress(args[0], options);
try
{
    var answer = new GRPCInferenceService.GRPCInferenceServiceClient(channel)
        .ModelInfer(request, deadline: DateTime.UtcNow.AddSeconds(60));
    // In the order of the outputs: labels, confidence.
    File.WriteAllBytes(args[6], answer.RawOutputContents[0].ToByteArray());
    var confidence = answer.Parameters["mean_confidence"].DoubleParam;
    Console.WriteLine($"{answer.ModelName}, version {answer.ModelVersion}, on {answer.Parameters["device"].StringParam}: "
        + $"mean confidence {confidence:F1} %");
    return 0;
}
catch (RpcException refused)
{
    Console.Error.WriteLine($"refused: {refused.Status.StatusCode}: {refused.Status.Detail}");
    return 1;
}
