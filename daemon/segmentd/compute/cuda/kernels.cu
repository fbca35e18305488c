// Kernels over a tile: one thread for each value. Planes (h, w) lie one behind the other.
//
// `EACH_THREAD(i, n)` is the number of the value; on the host a loop over all of them.

#ifdef __CUDACC_RTC__
#define KERNEL extern "C" __global__ void
#define EACH_THREAD(i, n)                                                     \
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;           \
    if (i >= (n)) return;
#else
#define KERNEL extern "C" void
#define EACH_THREAD(i, n) for (long long i = 0; i < (n); i++)
#endif

// Pixels of a channel as they come (float32 of any integer type), to what the filters work on; in place.
KERNEL prepare(float *pixels, long long count, float offset, float divisor, float level) {
    EACH_THREAD(i, count) { pixels[i] = scaled(pixels[i], offset, divisor, level); }
}

// Filter along x: `out` (height, width) from `image`, whose rows are `pitch` apart and which begins where
// the pixel of the first value lies.
KERNEL along_x(const float *image, long long pitch, float *out, int height, int width, const float *weights,
               int radius, int odd, int even_length) {
    EACH_THREAD(i, (long long)height * width) {
        Taps taps = {weights, radius, odd, even_length};
        out[i] = filtered(image + i / width * pitch + i % width, 1, taps);
    }
}

// Filter along y, plus a grey level: `out` (height, width) from `turned`, which begins where the pixel of the
// first value lies and has rows of `pitch`.
KERNEL along_y(const float *turned, long long pitch, float *out, int height, int width, const float *weights,
               int radius, int odd, int even_length, float level) {
    EACH_THREAD(i, (long long)height * width) {
        Taps taps = {weights, radius, odd, even_length};
        float value = filtered(turned + i / width * pitch + i % width, pitch, taps);
        out[i] = odd ? value : value + level;
    }
}

// An odd filter along y, subtracted from what is at `base` into `minus`, and added to it into `plus`; each may
// be missing.
KERNEL along_y_onto(const float *turned, long long pitch, const float *base, float *minus, float *plus,
                    int height, int width, const float *weights, int radius, int even_length) {
    EACH_THREAD(i, (long long)height * width) {
        Taps taps = {weights, radius, 1, even_length};
        float value = filtered(turned + i / width * pitch + i % width, pitch, taps), under = base[i];
        if (minus) minus[i] = under - value;
        if (plus) plus[i] = under + value;
    }
}

// Sobel magnitude of a Gaussian (height + 2, width + 2), and a copy of the Gaussian plus a grey level.
KERNEL sobel(const float *gaussian, float *copy, float *out, int height, int width, float level) {
    EACH_THREAD(i, (long long)height * width) {
        long long pitch = width + 2;
        const float *centre = gaussian + (i / width + 1) * pitch + i % width + 1;
        if (copy) copy[i] = *centre + level;
        out[i] = sobel_magnitude(centre, pitch);
    }
}

// Labels and confidence in percent of all pixels of a tile, from its planes of features.
KERNEL classify(const float *planes, long long pixels, const Node *nodes, const int *roots, int trees,
                int classes, int places, const double *values, int value_width, byte *labels,
                byte *confidence) {
    EACH_THREAD(i, pixels) {
        labels[i] = values ? elect_by_distributions(nodes, roots, trees, classes, value_width, values,
                                                    planes + i, pixels, confidence + i)
                           : elect_by_votes(nodes, roots, trees, classes, places, planes + i, pixels,
                                            confidence + i);
    }
}

// Share of the votes for each class, of all pixels of a tile: planes one behind the other.
KERNEL score(const float *planes, long long pixels, const Node *nodes, const int *roots, int trees, int classes,
             int places, const double *values, int value_width, float *scores) {
    EACH_THREAD(i, pixels) {
        score_classes(nodes, roots, trees, classes, places, value_width, values, planes + i, pixels, scores + i);
    }
}
