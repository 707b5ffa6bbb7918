/* The kernels as one unit, which is compiled where they are first used: see gt/native/library.py. */

#include "lanes.h"

#include "attention.c"
#include "dropout.c"
#include "gated.c"
#include "linear.c"
#include "listed.c"
