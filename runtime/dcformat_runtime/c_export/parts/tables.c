/* --- tables of gaps and codes --------------------------------------------------------------------------------------- */

typedef uint8_t bit_model_t; /* not used */

typedef struct {
    offset_t next;
} stream_t;

static void open_stream(stream_t *s, const tensor_t *t, bit_model_t *models)
{
    (void)models;
    s->next = t->stream;
}

static uint16_t read_gap(stream_t *s, const tensor_t *t)
{
    uint16_t gap = data_byte(s->next++);
    if (t->gap_bits > 8) {
        gap = (uint16_t)(gap + 256u * data_byte(s->next++));
    }
    return gap;
}

static uint16_t read_code(stream_t *s, const tensor_t *t)
{
    (void)t;
    return data_byte(s->next++);
}
