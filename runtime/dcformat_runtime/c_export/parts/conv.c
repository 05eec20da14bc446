/* --- convolutions, with the max pool that follows ------------------------------------------------------------------- */

typedef struct {
    tensor_t weight, bias;
    finish_t finish;
    uint16_t channels, height, width; /* of the input, channels of one group */
    uint16_t out, group;              /* output channels, of all groups and of one */
    uint16_t rows, columns;           /* of the output, after the pool */
    uint8_t kernel[2], stride[2], padding[2], dilation[2], pool[2];
} conv_t;

/* An entry of the row of weights in use: where its input lies, from the window's first element. */
typedef struct {
    index_t offset;
    row_weight_t weight;
#if PADDED
    uint8_t y, x;
#endif
} row_entry_t;

static row_entry_t row_entries[ROW_ENTRIES];

/* Reads a row's entries. Tensors that are stored element by element have entries of 0, which no window needs. */
static index_t read_row(const conv_t *c, reader_t *r, uint32_t start)
{
    uint32_t area = (uint32_t)c->kernel[0] * c->kernel[1];
    uint32_t columns = c->channels * area;
    index_t count = 0;
    while (r->position - start < columns) {
        if (r->weight != 0 && count < ROW_ENTRIES) {
            row_entry_t *e = &row_entries[count++];
            uint32_t column = r->position - start;
            uint32_t place = column % area;
            uint32_t y = place / c->kernel[1] * c->dilation[0];
            uint32_t x = place % c->kernel[1] * c->dilation[1];
            e->offset = (index_t)((column / area * c->height + y) * c->width + x);
            e->weight = (row_weight_t)r->weight;
#if PADDED
            e->y = (uint8_t)y;
            e->x = (uint8_t)x;
#endif
        }
        next_entry(r);
    }
    return count;
}

/* The bias minus the sum of the weights times the value that stands for 0. */
static sum_t inner_bias(const conv_t *c, sum_t bias, index_t count)
{
#if FLOATS
    (void)c;
    (void)count;
#else
    if (c->finish.input_zero) {
        while (count-- > 0) {
            bias = multiply_add(bias, row_entries[count].weight, -(int32_t)c->finish.input_zero);
        }
    }
#endif
    return bias;
}

/* Bias and sums of windows: `padded` for windows partly in the padding, `inner` for others, whose sums allow for the zero
   of the input. */
typedef struct {
    sum_t padded, inner;
} first_t;

#if PADDED
static sum_t padded_sum(const conv_t *c, const value_t *in, index_t count, int16_t y, int16_t x, sum_t sum)
{
    int32_t first = (int32_t)y * c->width + x;
    for (const row_entry_t *e = row_entries; e < row_entries + count; e++) {
        if ((uint16_t)(y + e->y) < c->height && (uint16_t)(x + e->x) < c->width) {
            sum = multiply_add(sum, e->weight, CENTERED(in[first + (int32_t)e->offset], &c->finish));
        }
    }
    return sum;
}

static uint8_t is_inside(int16_t at, uint8_t kernel, uint8_t dilation, uint16_t size)
{
    return at >= 0 && (uint16_t)(at + (kernel - 1) * dilation) < size;
}
#endif

/* The sums for the window that begins at (y, x) of the input and for the next one, which may be unused. */
static void two_sums(const conv_t *c, const value_t *in, index_t count, int16_t y, int16_t x, const first_t *first,
                     uint8_t two, sum_t *sums)
{
    const row_entry_t *end = row_entries + count;
    const value_t *next = two ? in + c->stride[1] : in;
    sum_t sum = first->inner, other = sum;
#if PADDED
    int16_t last = (int16_t)(two ? x + c->stride[1] : x);
    if (!is_inside(y, c->kernel[0], c->dilation[0], c->height) || !is_inside(x, c->kernel[1], c->dilation[1], c->width)
        || !is_inside(last, c->kernel[1], c->dilation[1], c->width)) {
        sums[0] = padded_sum(c, in, count, y, x, first->padded);
        sums[1] = two ? padded_sum(c, in, count, y, last, first->padded) : sums[0];
        return;
    }
#endif
    in += (int32_t)y * c->width + x;
    next += (int32_t)y * c->width + x;
    for (const row_entry_t *e = row_entries; e < end; e++) {
        sum = multiply_add(sum, e->weight, in[e->offset]);
        other = multiply_add(other, e->weight, next[e->offset]);
    }
    sums[0] = sum;
    sums[1] = other;
}

/* Results are computed two at a time: those of neighbours, or those of a pool window. */
static void conv(const conv_t *c, const value_t *in, value_t *out)
{
    reader_t weight, bias;
    uint32_t start = 0;
    uint16_t left = c->group;
    uint8_t pooled = c->pool[1] > 1;
    open_reader(&weight, &c->weight, WEIGHT_MODELS);
    open_reader(&bias, &c->bias, BIAS_MODELS);
    for (uint16_t row = 0; row < c->out; row++) {
        first_t first;
        scale_t scale = scale_of(&c->finish, row);
        index_t count = read_row(c, &weight, start);
        first.padded = (sum_t)bias_of(&bias, row);
        first.inner = inner_bias(c, first.padded, count);
        start += (uint32_t)c->channels * c->kernel[0] * c->kernel[1];
        for (uint16_t y = 0; y < c->rows; y++) {
            for (uint16_t x = 0; x < c->columns; x++) {
                uint8_t neighbours = !pooled && x + 1 < c->columns;
                sum_t best[2] = {0, 0};
                for (uint8_t i = 0; i < c->pool[0]; i++) {
                    for (uint8_t j = 0; j < c->pool[1]; j = (uint8_t)(j + 2)) {
                        int16_t at_y = (int16_t)((y * c->pool[0] + i) * c->stride[0] - c->padding[0]);
                        int16_t at_x = (int16_t)((x * c->pool[1] + j) * c->stride[1] - c->padding[1]);
                        sum_t sums[2];
                        two_sums(c, in, count, at_y, at_x, &first, neighbours || j + 1 < c->pool[1], sums);
                        if (pooled && GREATER(sums[1], sums[0])) {
                            sums[0] = sums[1];
                        }
                        if ((i | j) == 0 || GREATER(sums[0], best[0])) {
                            best[0] = sums[0];
                        }
                        if (i == 0 || GREATER(sums[1], best[1])) {
                            best[1] = sums[1];
                        }
                    }
                }
                *out++ = finished(best[0], &c->finish, scale);
                if (neighbours) {
                    *out++ = finished(best[1], &c->finish, scale);
                    x++;
                }
            }
        }
        if (--left == 0) {
            left = c->group;
            in += (index_t)c->channels * c->height * c->width;
        }
    }
}
