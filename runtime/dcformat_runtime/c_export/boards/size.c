/* Calls all of a model, so that a linked file has its size. It is never run. */

#include "model.h"

void entry(void);

void entry(void)
{
    static volatile int checked;
    checked = model_check();
#ifdef STATIC_INPUT
    model_run();
    checked += model_input() != 0 && model_output() != 0;
#else
    model_run((const model_input_t *)0x100, (model_output_t *)0x200);
#endif
    (void)checked;
}
