
static void row_means(const float *in, float *out, index_t rows, index_t length, double divisor)
{
    while (rows-- > 0) {
        *out++ = (float)(row_total(in, length) / divisor);
        in += length;
    }
}
