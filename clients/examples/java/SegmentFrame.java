import com.google.protobuf.ByteString;
import inference.GRPCInferenceServiceGrpc;
import inference.OpenInference.InferParameter;
import inference.OpenInference.ModelInferRequest;
import inference.OpenInference.ModelInferResponse;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/**
 * Sends one frame to segmentd and saves its labels: ADDRESS MODEL FRAME HEIGHT WIDTH DATATYPE LABELS.
 *
 * <p>FRAME holds the values row by row, little endian, DATATYPE is UINT8, UINT16, INT16, UINT32 or FP32; LABELS gets
 * a byte for each pixel. The daemon needs {@code [open_inference] enabled = true}.
 */
public final class SegmentFrame {
    // Labels and confidence come in one message.
    private static final int MAX_ANSWER_BYTES = 512 << 20;

    private SegmentFrame() {}

    public static void main(String[] args) throws IOException {
        if (args.length != 7) {
            System.err.println("usage: ADDRESS MODEL FRAME HEIGHT WIDTH DATATYPE LABELS");
            System.exit(2);
        }
        ManagedChannel channel =
                ManagedChannelBuilder.forTarget(args[0])
                        .usePlaintext() // beyond this machine: useTransportSecurity()
                        .maxInboundMessageSize(MAX_ANSWER_BYTES)
                        .build();
        try {
            ModelInferResponse answer =
                    GRPCInferenceServiceGrpc.newBlockingStub(channel)
                            .withDeadlineAfter(60, TimeUnit.SECONDS)
                            .modelInfer(request(args));
            // In the order of the outputs: labels, confidence.
            Files.write(Path.of(args[6]), answer.getRawOutputContents(0).toByteArray());
            System.out.printf(
                    "%s, version %s, on %s: mean confidence %.1f %%%n",
                    answer.getModelName(),
                    answer.getModelVersion(),
                    answer.getParametersOrThrow("device").getStringParam(),
                    answer.getParametersOrThrow("mean_confidence").getDoubleParam());
        } catch (StatusRuntimeException refused) {
            System.err.println("refused: " + refused.getStatus());
            System.exit(1);
        } finally {
            channel.shutdownNow();
        }
    }

    private static ModelInferRequest request(String[] args) throws IOException {
        return ModelInferRequest.newBuilder()
                .setModelName(args[1])
                .putParameters("min_confidence", InferParameter.newBuilder().setInt64Param(50).build())
                .addInputs(
                        ModelInferRequest.InferInputTensor.newBuilder()
                                .setName("image")
                                .setDatatype(args[5])
                                .addShape(Long.parseLong(args[3]))
                                .addShape(Long.parseLong(args[4])))
                .addRawInputContents(ByteString.copyFrom(Files.readAllBytes(Path.of(args[2]))))
                .build();
    }
}
