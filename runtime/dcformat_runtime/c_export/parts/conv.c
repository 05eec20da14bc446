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

static index_t read_row(const conv_t *c, reader_t *r, uint32_t start)
{
    uint32_t area = (uint32_t)c->kernel[0] * c->kernel[1];
    uint32_t columns = c->channels * area;
    index_t count = 0;
    while (r->position - start < columns && count < ROW_ENTRIES) {
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
        next_entry(r);
    }
    return count;
}

/* The bias less what the entries make of the value that stands for 0. */
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

/* The sum for the window that begins at (y, x) of the input. Windows partly in the padding begin with `bias`, others
   with `inner`, which allows for the zero of the input. */
static sum_t window_sum(const conv_t *c, const value_t *in, index_t count, int16_t y, int16_t x, sum_t bias, sum_t inner)
{
    const row_entry_t *end = row_entries + count;
    int32_t first = (int32_t)y * c->width + x;
#if PADDED
    int16_t last_y = (int16_t)(c->height - (c->kernel[0] - 1) * c->dilation[0] - 1);
    int16_t last_x = (int16_t)(c->width - (c->kernel[1] - 1) * c->dilation[1] - 1);
    if (y < 0 || x < 0 || y > last_y || x > last_x) {
        for (const row_entry_t *e = row_entries; e < end; e++) {
            if ((uint16_t)(y + e->y) < c->height && (uint16_t)(x + e->x) < c->width) {
                bias = multiply_add(bias, e->weight, centered(in[first + (int32_t)e->offset], &c->finish));
            }
        }
        return bias;
    }
#endif
    (void)bias;
    in += first;
    for (const row_entry_t *e = row_entries; e < end; e++) {
        inner = multiply_add(inner, e->weight, in[e->offset]);
    }
    return inner;
}

static void conv(const conv_t *c, const value_t *in, value_t *out)
{
    reader_t weight, bias;
    uint32_t start = 0;
    uint16_t left = c->group;
    open_reader(&weight, &c->weight, WEIGHT_MODELS);
    open_reader(&bias, &c->bias, BIAS_MODELS);
    for (uint16_t row = 0; row < c->out; row++) {
        sum_t first = (sum_t)bias_of(&bias, row);
        index_t count = read_row(c, &weight, start);
        sum_t inner = inner_bias(c, first, count);
        start += (uint32_t)c->channels * c->kernel[0] * c->kernel[1];
        for (uint16_t y = 0; y < c->rows; y++) {
            for (uint16_t x = 0; x < c->columns; x++) {
                sum_t best = 0;
                for (uint8_t i = 0; i < c->pool[0]; i++) {
                    for (uint8_t j = 0; j < c->pool[1]; j++) {
                        int16_t at_y = (int16_t)((y * c->pool[0] + i) * c->stride[0] - c->padding[0]);
                        int16_t at_x = (int16_t)((x * c->pool[1] + j) * c->stride[1] - c->padding[1]);
                        sum_t sum = window_sum(c, in, count, at_y, at_x, first, inner);
                        if ((i | j) == 0 || GREATER(sum, best)) {
                            best = sum;
                        }
                    }
                }
                *out++ = finished(best, &c->finish, row);
            }
        }
        if (--left == 0) {
            left = c->group;
            in += (index_t)c->channels * c->height * c->width;
        }
    }
}
