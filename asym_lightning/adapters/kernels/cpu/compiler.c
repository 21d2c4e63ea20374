/* What compiled the kernels, for the record of a run. */

#ifdef __clang__
const char compiler[] = __VERSION__;
#else
const char compiler[] = "gcc " __VERSION__;
#endif
