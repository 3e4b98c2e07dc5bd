/* Blocks of 16 bytes that are compared at once, with SSE2 or NEON; without either, BLOCK is 0. */
#ifndef BLOCKS_H
#define BLOCKS_H

#if defined(KERNEL_SCALAR)
#define BLOCK 0
#elif defined(__SSE2__)
#include <emmintrin.h>
#define BLOCK 16
typedef __m128i Block;
typedef uint32_t Mask; /* one bit for each byte */
#define FIRST(mask) ((unsigned)__builtin_ctz(mask))
static inline Block load(const uint8_t *from) { return _mm_loadu_si128((const void *)from); }
static inline void store(uint8_t *to, Block bytes) { _mm_storeu_si128((void *)to, bytes); }
static inline Mask equal(Block bytes, uint8_t byte) {
  return (Mask)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)byte)));
}
/* The bytes at which a plain text ends: quote, backslash, control, or, since the comparison is
   signed, any byte that is not ASCII. */
static inline Mask stops(Block bytes) {
  return (Mask)_mm_movemask_epi8(
      _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
                                _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'))),
                   _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20))));
}
/* True if the first `count` (at most 16) bytes of two blocks differ. */
static inline int differs(const uint8_t *one, const uint8_t *other, uint32_t count) {
  Mask same = (Mask)_mm_movemask_epi8(_mm_cmpeq_epi8(load(one), load(other)));
  return (~same & ((1u << count) - 1)) != 0;
}
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define BLOCK 16
typedef uint8x16_t Block;
typedef uint64_t Mask; /* four bits for each byte */
#define FIRST(mask) ((unsigned)__builtin_ctzll(mask) >> 2)
static inline Block load(const uint8_t *from) { return vld1q_u8(from); }
static inline void store(uint8_t *to, Block bytes) { vst1q_u8(to, bytes); }
static inline Mask packed(uint8x16_t bytes) {
  return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(bytes), 4)), 0);
}
static inline Mask equal(Block bytes, uint8_t byte) {
  return packed(vceqq_u8(bytes, vdupq_n_u8(byte)));
}
static inline Mask stops(Block bytes) {
  return packed(vorrq_u8(vorrq_u8(vceqq_u8(bytes, vdupq_n_u8('"')),
                                  vceqq_u8(bytes, vdupq_n_u8('\\'))),
                         vcltq_s8(vreinterpretq_s8_u8(bytes), vdupq_n_s8(0x20))));
}
static inline int differs(const uint8_t *one, const uint8_t *other, uint32_t count) {
  Mask same = packed(vceqq_u8(load(one), load(other)));
  return (~same & (count < 16 ? (1ull << (4 * count)) - 1 : ~0ull)) != 0;
}
#else
#define BLOCK 0
#endif

#define PAD 64
/* Bytes that may be written beyond the end of any output, because whole blocks are stored. */

#endif
