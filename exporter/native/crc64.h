/* CRC-64/NVME, by which S3 checks parts and whole objects: the polynomial is 0xAD93D23594C93659, the
   lowest bit of each byte comes first, and all bits of the first and the last value are inverted. */
#ifndef CRC64_H
#define CRC64_H

#define CRC64_POLYNOMIAL UINT64_C(0x9A6C9329AC4BC9B5) /* its bits in the order of the bytes' bits */

static uint64_t CRC64_TABLE[16][256]; /* [n][byte]: the byte, followed by n bytes of zeros */

__attribute__((constructor)) static void crc64_fill(void) {
  for (unsigned byte = 0; byte < 256; byte++) {
    uint64_t crc = byte;
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ CRC64_POLYNOMIAL : crc >> 1;
    CRC64_TABLE[0][byte] = crc;
  }
  for (int zeros = 1; zeros < 16; zeros++)
    for (unsigned byte = 0; byte < 256; byte++) {
      uint64_t before = CRC64_TABLE[zeros - 1][byte];
      CRC64_TABLE[zeros][byte] = before >> 8 ^ CRC64_TABLE[0][before & 255];
    }
}

/* Returns the CRC of 8 bytes that are followed by `zeros` bytes of zeros. */
static inline uint64_t crc64_word(uint64_t word, int zeros) {
  const uint64_t(*table)[256] = (const uint64_t(*)[256])CRC64_TABLE + zeros;
  return table[7][word & 255] ^ table[6][word >> 8 & 255] ^ table[5][word >> 16 & 255] ^
         table[4][word >> 24 & 255] ^ table[3][word >> 32 & 255] ^ table[2][word >> 40 & 255] ^
         table[1][word >> 48 & 255] ^ table[0][word >> 56];
}

static uint64_t crc64_by_table(uint64_t crc, const uint8_t *at, size_t size) {
  for (; size >= 16; at += 16, size -= 16)
    crc = crc64_word(crc ^ read_64(at), 8) ^ crc64_word(read_64(at + 8), 0);
  for (; size; at++, size--) crc = crc >> 8 ^ CRC64_TABLE[0][(crc ^ *at) & 255];
  return crc;
}

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>

/* Moves 16 bytes forward and adds those that are there. `powers` has, for the distance of d bits,
   x^(d+63) in the low and x^(d-1) in the high half, modulo the polynomial. */
__attribute__((target("pclmul"))) static inline __m128i crc64_fold(__m128i bytes, __m128i powers,
                                                                  __m128i there) {
  __m128i first = _mm_clmulepi64_si128(bytes, powers, 0x00);
  __m128i second = _mm_clmulepi64_si128(bytes, powers, 0x11);
  return _mm_xor_si128(_mm_xor_si128(first, second), there);
}

/* The same as `crc64_by_table` by carry-less multiplication, for 128 bytes or more: all but the last
   few bytes are folded into 16 bytes that have the same CRC. */
__attribute__((target("pclmul"))) static uint64_t crc64_by_folding(uint64_t crc, const uint8_t *at,
                                                                   size_t size) {
  const __m128i far = _mm_set_epi64x(0x62242240ACE5045A, 0x0C32CDB31E18A84A); /* 512 bits */
  const __m128i near = _mm_set_epi64x(0x21E9761E252621AC, (int64_t)0xEADC41FD2BA3D420); /* 128 */
  const __m128i *from = (const __m128i *)at;
  uint8_t folded[16];
  __m128i lanes[4];
  for (int lane = 0; lane < 4; lane++) lanes[lane] = _mm_loadu_si128(from + lane);
  lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi64_si128((int64_t)crc));
  for (from += 4, size -= 64; size >= 64; from += 4, size -= 64)
    for (int lane = 0; lane < 4; lane++)
      lanes[lane] = crc64_fold(lanes[lane], far, _mm_loadu_si128(from + lane));
  for (int lane = 1; lane < 4; lane++) lanes[lane] = crc64_fold(lanes[lane - 1], near, lanes[lane]);
  _mm_storeu_si128((__m128i *)folded, lanes[3]);
  return crc64_by_table(crc64_by_table(0, folded, 16), (const uint8_t *)from, size);
}

static int crc64_can_fold(void) {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_PCLMUL);
}
#endif

/* Returns the CRC of `size` bytes after bytes with the CRC `before`; 0 is the CRC of no bytes. */
API uint64_t crc64(uint64_t before, const uint8_t *bytes, size_t size) {
#ifdef __x86_64__
  if (size >= 128 && crc64_can_fold()) return ~crc64_by_folding(~before, bytes, size);
#endif
  return ~crc64_by_table(~before, bytes, size);
}

static uint64_t crc64_multiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  for (; a; a <<= 1) {
    if (a >> 63) product ^= b;
    b = b & 1 ? b >> 1 ^ CRC64_POLYNOMIAL : b >> 1;
  }
  return product;
}

/* Returns the CRC of bytes with the CRC `first` that are followed by `size` bytes with `second`. */
API uint64_t crc64_combine(uint64_t first, uint64_t second, uint64_t size) {
  for (uint64_t power = UINT64_C(1) << 55; size; size >>= 1) { /* x^8, then its squares */
    if (size & 1) first = crc64_multiply(first, power);
    power = crc64_multiply(power, power);
  }
  return first ^ second;
}

#endif
