
static float sigmoid(float x)
{
    float e = exponential(x < 0.0f ? x : -x);
    return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}
