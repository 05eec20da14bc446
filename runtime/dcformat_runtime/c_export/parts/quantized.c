
static float quantized(float x, float scale, float zero, float low, float high)
{
    float steps = rounded(x / scale) + zero;
    steps = steps > low ? steps : low;
    steps = steps < high ? steps : high;
    return (steps - zero) * scale;
}
