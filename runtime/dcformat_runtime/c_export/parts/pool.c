/* --- pools ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint16_t channels, height, width; /* of the input */
    uint16_t rows, columns;           /* of the output */
    uint8_t kernel[2], stride[2], padding[2];
    uint8_t padding_end[2];           /* counted in means; 0 where the padding does not count */
    uint8_t count_padding;
    value_t zero;
} pool_t;

/* The part of a window that lies in an input of `size` elements. */
typedef struct {
    uint16_t first, end;
    uint16_t counted; /* elements that a mean counts */
} span_t;

static span_t span_of(uint16_t place, const pool_t *p, uint8_t axis, uint16_t size)
{
    int32_t first = (int32_t)place * p->stride[axis] - p->padding[axis];
    int32_t end = first + p->kernel[axis];
    int32_t padded = (int32_t)size + p->padding_end[axis];
    span_t span;
    span.counted = (uint16_t)((end < padded ? end : padded) - first);
    first = first > 0 ? first : 0;
    end = end < size ? end : size;
    if (!p->count_padding) {
        span.counted = (uint16_t)(end - first);
    }
    span.first = (uint16_t)first;
    span.end = (uint16_t)end;
    return span;
}

static void pool(const pool_t *p, const value_t *in, value_t *out, value_t (*reduce)(const pool_t *, const value_t *, span_t, span_t))
{
    for (uint16_t channel = 0; channel < p->channels; channel++) {
        for (uint16_t y = 0; y < p->rows; y++) {
            span_t rows = span_of(y, p, 0, p->height);
            for (uint16_t x = 0; x < p->columns; x++) {
                *out++ = reduce(p, in, rows, span_of(x, p, 1, p->width));
            }
        }
        in += (index_t)p->height * p->width;
    }
}
