/* --- canonical Huffman codes --------------------------------------------------------------------------------------- */

typedef uint8_t bit_model_t; /* not used */

typedef struct {
    offset_t next, end;
    uint8_t byte, left; /* bits of `byte` that are left */
} stream_t;

static void open_stream(stream_t *s, const tensor_t *t, bit_model_t *models)
{
    (void)models;
    s->next = t->stream;
    s->end = t->end;
    s->byte = s->left = 0;
}

/* A table is the number of code words of 1 to 12 bits (a byte each), then the symbols in the order of code words. */
static uint16_t read_symbol(stream_t *s, offset_t table)
{
    uint32_t symbols = (uint32_t)table + 12u;
    uint16_t word = 0;
    for (uint8_t bits = 0; bits < 12; bits++) {
        uint8_t count = data_byte((uint32_t)table + bits);
        if (s->left == 0) {
            s->byte = s->next < s->end ? data_byte(s->next++) : (uint8_t)0;
            s->left = 8;
        }
        s->left--;
        word = (uint16_t)(2u * word + (s->byte >> 7));
        s->byte = (uint8_t)(s->byte << 1);
        if (word < count) {
            return data_byte(symbols + word);
        }
        word = (uint16_t)(word - count);
        symbols += count;
    }
    return 0;
}

static uint16_t read_gap(stream_t *s, const tensor_t *t)
{
    return read_symbol(s, t->gap_table);
}

static uint16_t read_code(stream_t *s, const tensor_t *t)
{
    return read_symbol(s, t->code_table);
}
