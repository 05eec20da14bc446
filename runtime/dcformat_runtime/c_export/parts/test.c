/* @TITLE@

   Compares the model's outputs with those that were computed when it was exported. `main` is left out with
   -DMODEL_TEST_NO_MAIN, for programs that call model_test themselves. */

#include "model.h"

#include <string.h>

#ifndef MODEL_TEST_NO_MAIN
#include <stdio.h>
#endif

#ifdef __AVR__
#include <avr/pgmspace.h>
#define FLASH PROGMEM
#define FLASH_BYTE(address) pgm_read_byte(address)
#else
#define FLASH
#define FLASH_BYTE(address) (*(address))
#endif

#define TESTS @COUNT@
#define STATIC_INPUT @STATIC@

@ARRAYS@
static void load(void *target, const uint8_t *flash, uint16_t size)
{
    uint8_t *bytes = target;
    while (size-- > 0) {
        *bytes++ = FLASH_BYTE(flash++);
    }
}

/* Return the number of tests that fail. */
int model_test(void)
{
    int failed = 0;
    for (int i = 0; i < TESTS; i++) {
        model_output_t expected[MODEL_OUTPUTS];
        const uint8_t *test_input = test_inputs + (uint32_t)i * MODEL_INPUTS * sizeof(model_input_t);
#if STATIC_INPUT
        const model_output_t *output = model_output();
        load(model_input(), test_input, MODEL_INPUTS * sizeof(model_input_t));
        model_run();
#else
        static model_input_t input[MODEL_INPUTS];
        model_output_t output[MODEL_OUTPUTS];
        load(input, test_input, MODEL_INPUTS * sizeof(model_input_t));
        model_run(input, output);
#endif
        load(expected, test_outputs + (uint32_t)i * sizeof expected, sizeof expected);
        failed += memcmp(expected, output, sizeof expected) != 0;
    }
    return failed;
}

#ifndef MODEL_TEST_NO_MAIN
int main(void)
{
    int failed = model_test();
    int checked = model_check();
    printf("checksum %s; %d of %d outputs are as expected\n", checked ? "matches" : "DOES NOT MATCH", TESTS - failed, TESTS);
    return checked && failed == 0 ? 0 : 1;
}
#endif
