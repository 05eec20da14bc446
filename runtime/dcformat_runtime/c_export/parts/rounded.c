
/* The nearest whole number, halves to even. */
static float rounded(float x)
{
    float size = x < 0.0f ? -x : x;
    float near = (size + 8388608.0f) - 8388608.0f;
    return size < 8388608.0f ? (x < 0.0f ? -near : near) : x;
}
