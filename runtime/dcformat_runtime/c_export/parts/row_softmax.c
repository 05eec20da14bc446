
static void row_softmax(const float *in, float *out, index_t rows, index_t length)
{
    while (rows-- > 0) {
        float greatest = in[0], total;
        for (index_t i = 1; i < length; i++) {
            greatest = in[i] > greatest ? in[i] : greatest;
        }
        for (index_t i = 0; i < length; i++) {
            out[i] = exponential(in[i] - greatest);
        }
        total = (float)row_total(out, length);
        for (index_t i = 0; i < length; i++) {
            out[i] /= total;
        }
        in += length;
        out += length;
    }
}
