/* Cuts pages of JSON into rows, writes rows as CSV or JSON Lines, and sums bytes.

   The library has no state and no lock, and knows nothing of Python: it is called through ctypes,
   which releases the interpreter's lock meanwhile, and one binary serves every version of Python.
   The readable definition of every byte that it writes is the Python code in exporter/formats. A row
   that this library does not handle is marked odd and written by that code; a page that it does not
   accept is read by exporter/sources/http/json_pages.py, which finds the words for its error. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define API __declspec(dllexport)
#else
#define API __attribute__((visibility("default")))
#endif
#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#define KERNEL_VERSION 2
/* Grows with each change of a signature, or of a struct that the binding reads. */

_Static_assert(sizeof(size_t) == 8, "sums of sizes of 32 bits must fit");

#include "blocks.h"
#include "scan.h"
#include "blake2b.h"
#include "text.h"
#include "page.h"
#include "plan.h"
#include "guard.h"
#include "csv.h"
#include "jsonl.h"
#include "crc64.h"

API uint32_t kernel_version(void) { return KERNEL_VERSION; }
