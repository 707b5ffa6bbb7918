/* All kernels as one translation unit, compiled on first use: see gt/native/library.py. */

#include "lanes.h"

#include "attention.c"
#include "dropout.c"
#include "gated.c"
#include "linear.c"
#include "listed.c"
