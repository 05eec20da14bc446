
static float hyperbolic_tangent(float x)
{
    float size = x < 0.0f ? -x : x;
    float z = x * x, p, product;
    if (size >= 0.625f) {
        float far = 1.0f - 2.0f / (exponential(size + size) + 1.0f);
        return x < 0.0f ? -far : far;
    }
    product = -5.70498872745e-3f * z;
    p = product + 2.06390887954e-2f;
    product = p * z;
    p = product + -5.37397155531e-2f;
    product = p * z;
    p = product + 1.33314422036e-1f;
    product = p * z;
    p = product + -3.33332819422e-1f;
    product = p * z;
    product = product * x;
    return product + x;
}
