/* --- adaptive binary arithmetic coding (coder 2, variant 0) -------------------------------------------------------- */

/* A bit model is a probability of 22 bits and a count of 9 bits. */
typedef uint32_t bit_model_t;

typedef struct {
    uint32_t code, range;
    offset_t next, end;
    bit_model_t *models; /* 2^gap_bits for gaps, then one for signs and the others for magnitudes */
    uint16_t limit;
} stream_t;

static uint8_t next_byte(stream_t *s)
{
    return s->next < s->end ? data_byte(s->next++) : (uint8_t)0;
}

static void open_stream(stream_t *s, const tensor_t *t, bit_model_t *models)
{
    uint16_t count = (uint16_t)((1u << t->gap_bits) + (1u << t->magnitude_bits));
    s->range = 0xFFFFFFFFu;
    s->code = 0;
    s->next = t->stream;
    s->end = t->end;
    s->models = models;
    s->limit = t->limit;
    for (uint8_t i = 0; i < 4; i++) {
        s->code = s->code << 8 | next_byte(s);
    }
    while (count-- > 0) {
        models[count] = (bit_model_t)1 << 30;
    }
}

static uint16_t read_bit(stream_t *s, bit_model_t *model)
{
    uint32_t probability = *model >> 9;
    uint16_t count = (uint16_t)(*model & 511u);
    uint32_t rate = 131072u / (2u * count + 3u);
    uint32_t bound = probability >> 6;
    uint32_t rest = probability;
    uint16_t bit;
    bound = bound < 32 ? 32 : bound > 65504u ? 65504u : bound;
    bound *= s->range >> 16;
    bit = s->code < bound;
    if (bit) {
        s->range = bound;
        rest = 4194303u - probability;
    } else {
        s->code -= bound;
        s->range -= bound;
    }
    rest = (rest >> 16) * rate + ((rest & 0xFFFFu) * rate >> 16);
    probability = bit ? probability + rest : probability - rest;
    *model = probability << 9 | (count < s->limit ? count + 1u : count);
    while (s->range < 0x1000000u) {
        s->range <<= 8;
        s->code = s->code << 8 | next_byte(s);
    }
    return bit;
}

static uint16_t read_gap(stream_t *s, const tensor_t *t)
{
    uint16_t node = 1;
    for (uint8_t i = 0; i < t->gap_bits; i++) {
        node = (uint16_t)(2u * node + read_bit(s, &s->models[node]));
    }
    return (uint16_t)(node - (1u << t->gap_bits));
}

static uint16_t read_code(stream_t *s, const tensor_t *t)
{
    bit_model_t *models = s->models + (1u << t->gap_bits);
    uint16_t negatives = t->negatives;
    uint16_t positives = (uint16_t)(t->codes - negatives);
    uint16_t negative = (negatives && positives) ? read_bit(s, models) : negatives != 0;
    uint16_t possible = negative ? negatives : positives;
    uint16_t node = 1;
    for (uint8_t shift = t->magnitude_bits; shift-- > 0;) {
        uint16_t bit = 0;
        if (((2u * node + 1u) << shift) - (1u << t->magnitude_bits) < possible) {
            bit = read_bit(s, &models[node]);
        }
        node = (uint16_t)(2u * node + bit);
    }
    node = (uint16_t)(node - (1u << t->magnitude_bits));
    return (uint16_t)(negative ? negatives - 1u - node : negatives + node);
}

static bit_model_t models[BIT_MODELS];
