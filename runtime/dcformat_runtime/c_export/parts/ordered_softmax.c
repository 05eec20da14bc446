
/* exp(-x) for x >= 0. */
static double shrinking(double x)
{
    int halvings = (int)((x < 104.0 ? x : 104.0) * 1.4426950408889634 + 0.5);
    double r = (double)halvings * 0.6931471805599453 - x;
    double total = 1.0;
    for (int k = 11; k > 0; k--) {
        double product = total * r;
        total = 1.0 + product / k;
    }
    return x < 104.0 ? ldexp(total, -halvings) : 0.0;
}

static void ordered_softmax(const float *in, float *out, index_t length)
{
    float greatest = in[0], total = 0.0f;
    for (index_t i = 1; i < length; i++) {
        greatest = in[i] > greatest ? in[i] : greatest;
    }
    for (index_t i = 0; i < length; i++) {
        out[i] = (float)shrinking((double)greatest - (double)in[i]);
        total += out[i];
    }
    for (index_t i = 0; i < length; i++) {
        out[i] /= total;
    }
}
