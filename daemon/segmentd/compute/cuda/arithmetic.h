// Features and forest of one pixel. The same text is compiled for the device and, in tests, for the host.
//
// The operations and their order are those of the processor's code (compute/vector_blocks.py,
// compute/packets), so that equal pixels give equal bits: sums go from the outermost weight to the centre,
// products are added in one rounding, and nothing is reordered (compile with -fmad=false).

#ifdef __CUDACC_RTC__
#define FUNCTION static __device__ __forceinline__
#else
#include <math.h>
#define FUNCTION static inline
#endif

typedef unsigned char byte;

// A filter along one axis, folded about its centre; see separable.Taps.
struct Taps {
    const float *weights;
    int radius;
    int odd;
    int even_length;
};

// Inner node of a forest; see packets.layout.RECORD.
struct Node {
    int plane_offset;
    float threshold;
    int left;
    int right;
};

enum { CODE_STEP = 16, PLANE_BYTES = 256, NOT_A_NUMBER = 255 };

// The value of a filter where `centre` points; neighbours are `stride` apart.
FUNCTION float filtered(const float *centre, long long stride, Taps taps) {
    const float *upper = centre - (taps.even_length ? stride : 0);
    float sum = 0.0f;
    for (int t = taps.radius; t > 0; t--) {
        float high = upper[t * stride], low = centre[-t * stride];
        sum = fmaf(taps.weights[t], taps.odd ? high - low : high + low, sum);
    }
    return taps.odd ? sum : fmaf(taps.weights[0], *centre, sum);
}

// Magnitude of the Sobel gradient where `centre` points; rows are `stride` apart.
FUNCTION float sobel_magnitude(const float *centre, long long stride) {
    float across[3], along[3];
    for (int row = 0; row < 3; row++) {
        const float *middle = centre + (row - 1) * stride;
        across[row] = middle[1] - middle[-1];
        along[row] = fmaf(2.0f, middle[0], middle[-1] + middle[1]);
    }
    float dx = fmaf(2.0f, across[1], across[0] + across[2]);
    float dy = along[2] - along[0];
    return sqrtf(fmaf(dx, dx, dy * dy));
}

// Scaled grey value of a pixel, 0 where that is not finite, less the level of its plane.
FUNCTION float scaled(float pixel, float offset, float divisor, float level) {
    float value = (pixel - offset) / divisor;
    return (isfinite(value) ? value : 0.0f) - level;
}

// Number of the leaf that a pixel comes to; its features are `stride` apart.
FUNCTION int leaf_of(const Node *nodes, int code, const float *features, long long stride) {
    while (code >= 0) {
        Node node = nodes[code / CODE_STEP];
        float value = features[node.plane_offset / PLANE_BYTES * stride];
        code = value <= node.threshold ? node.left : node.right;
    }
    return (code & 0x7fffffff) / CODE_STEP;
}

// Label of a pixel from the votes of pure leaves, whose numbers are class * places + tree.
FUNCTION byte elect_by_votes(const Node *nodes, const int *roots, int trees, int classes, int places,
                             const float *features, long long stride, byte *confidence) {
    byte votes[255];
    votes[0] = 0;
    for (int k = 1; k < classes; k++) votes[k] = 0;
    for (int tree = 0; tree < trees; tree++) votes[leaf_of(nodes, roots[tree], features, stride) / places]++;
    int winner = 0;
    for (int k = 1; k < classes; k++)
        if (votes[k] > votes[winner]) winner = k;
    *confidence = (byte)rint(100.0 * ((double)votes[winner] / trees));
    return (byte)(winner + 1);
}

// Label of a pixel from the distributions of its leaves, summed in the order of the trees. `width` values
// stand for a leaf. Eight classes at a time, which are kept in registers; more are rare.
FUNCTION byte elect_by_distributions(const Node *nodes, const int *roots, int trees, int classes, int width,
                                     const double *values, const float *features, long long stride,
                                     byte *confidence) {
    int winner = 0;
    double best = -1.0;
    for (int first = 0; first < classes; first += 8) {
        double sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        int count = classes - first < 8 ? classes - first : 8;
        for (int tree = 0; tree < trees; tree++) {
            const double *leaf = values + (long long)leaf_of(nodes, roots[tree], features, stride) * width;
            for (int k = 0; k < count; k++) sums[k] += leaf[first + k];
        }
        for (int k = 0; k < count; k++) {
            double score = sums[k] / trees;
            if (score > best) {
                best = score;
                winner = first + k;
            }
        }
    }
    // Scores are from 0 to 1 whatever the pixel is: anything else is a fault of the device.
    *confidence = best >= 0.0 && best <= 1.001 ? (byte)rint(100.0 * best) : (byte)NOT_A_NUMBER;
    return (byte)(winner + 1);
}

// Share of the trees' votes for each class, in planes of `stride` pixels; leaves as for `elect_by_...`.
FUNCTION void score_classes(const Node *nodes, const int *roots, int trees, int classes, int places, int width,
                            const double *values, const float *features, long long stride, float *scores) {
    if (!values) {
        byte votes[255];
        for (int k = 0; k < classes; k++) votes[k] = 0;
        for (int tree = 0; tree < trees; tree++) votes[leaf_of(nodes, roots[tree], features, stride) / places]++;
        for (int k = 0; k < classes; k++) scores[k * stride] = (float)((double)votes[k] / trees);
        return;
    }
    for (int first = 0; first < classes; first += 8) {
        double sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        int count = classes - first < 8 ? classes - first : 8;
        for (int tree = 0; tree < trees; tree++) {
            const double *leaf = values + (long long)leaf_of(nodes, roots[tree], features, stride) * width;
            for (int k = 0; k < count; k++) sums[k] += leaf[first + k];
        }
        for (int k = 0; k < count; k++) scores[(first + k) * stride] = (float)(sums[k] / trees);
    }
}
