
/* The mean of each channel, added in four interleaved sums; the first takes what is left over. */
static void global_mean(const float *in, float *out, index_t channels, index_t area)
{
    while (channels-- > 0) {
        float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (index_t i = 0; i < area; i++) {
            sums[i < area - area % 4 ? i % 4 : 0] += in[i];
        }
        *out++ = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / (float)area;
        in += area;
    }
}
