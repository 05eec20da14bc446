/* --- the entries of a tensor, one after the other ------------------------------------------------------------------- */

#define NO_POSITION 0xFFFFFFFFu

/* Goes through a tensor's entries. `position` counts the elements row by row; NO_POSITION after the last entry. */
typedef struct {
    const tensor_t *tensor;
    stream_t stream;
    uint32_t position;
    offset_t read; /* entries so far */
    weight_t weight;
} reader_t;

static void next_entry(reader_t *r)
{
    const tensor_t *t = r->tensor;
    uint32_t at = r->read;
    if (at == t->entries) {
        r->position = NO_POSITION;
        return;
    }
    r->position++;
    if (t->gap_bits) {
        uint16_t escape = (uint16_t)((1ul << t->gap_bits) - 1u);
        uint16_t gap;
        do {
            gap = read_gap(&r->stream, t);
            r->position += gap;
            if (r->position >= t->elements) {
                r->position = NO_POSITION;
                r->read = t->entries;
                return;
            }
        } while (gap == escape);
    }
    r->read++;
    if (t->codes) {
        at = read_code(&r->stream, t);
    }
    r->weight = value_of(t, at);
}

static void open_reader(reader_t *r, const tensor_t *t, bit_model_t *models)
{
    r->tensor = t;
    r->position = NO_POSITION;
    r->read = 0;
    if (t->gap_bits || t->codes) {
        open_stream(&r->stream, t, models);
    }
    next_entry(r);
}

/* The bias of a row; `r` reads a tensor of one element for each row. */
static weight_t bias_of(reader_t *r, uint32_t row)
{
    weight_t bias = 0;
    if (r->position == row) {
        bias = r->weight;
        next_entry(r);
    }
    return bias;
}
