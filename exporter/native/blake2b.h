/* BLAKE2b with a digest of 8 bytes and no key (RFC 7693), equal to hashlib.blake2b(digest_size=8). */
#ifndef BLAKE2B_H
#define BLAKE2B_H

static const uint64_t BLAKE_IV[8] = {
    0x6a09e667f3bcc908ull, 0xbb67ae8584caa73bull, 0x3c6ef372fe94f82bull, 0xa54ff53a5f1d36f1ull,
    0x510e527fade682d1ull, 0x9b05688c2b3e6c1full, 0x1f83d9abfb41bd6bull, 0x5be0cd19137e2179ull};
static const uint8_t BLAKE_SIGMA[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

#define BLAKE_ROTATE(x, n) ((x) >> (n) | (x) << (64 - (n)))
#define BLAKE_MIX(a, b, c, d, x, y)                        \
  do {                                                     \
    a += b + (x), d = BLAKE_ROTATE(d ^ a, 32), c += d;     \
    b = BLAKE_ROTATE(b ^ c, 24), a += b + (y);             \
    d = BLAKE_ROTATE(d ^ a, 16), c += d, b = BLAKE_ROTATE(b ^ c, 63); \
  } while (0)

static void blake_compress(uint64_t state[8], const uint8_t *block, uint64_t length, int is_last) {
  uint64_t v[16], words[16];
  for (int i = 0; i < 16; i++) words[i] = read_64(block + 8 * i);
  for (int i = 0; i < 8; i++) v[i] = state[i], v[i + 8] = BLAKE_IV[i];
  v[12] ^= length;
  if (is_last) v[14] = ~v[14];
  for (int round = 0; round < 12; round++) {
    const uint8_t *s = BLAKE_SIGMA[round % 10];
    BLAKE_MIX(v[0], v[4], v[8], v[12], words[s[0]], words[s[1]]);
    BLAKE_MIX(v[1], v[5], v[9], v[13], words[s[2]], words[s[3]]);
    BLAKE_MIX(v[2], v[6], v[10], v[14], words[s[4]], words[s[5]]);
    BLAKE_MIX(v[3], v[7], v[11], v[15], words[s[6]], words[s[7]]);
    BLAKE_MIX(v[0], v[5], v[10], v[15], words[s[8]], words[s[9]]);
    BLAKE_MIX(v[1], v[6], v[11], v[12], words[s[10]], words[s[11]]);
    BLAKE_MIX(v[2], v[7], v[8], v[13], words[s[12]], words[s[13]]);
    BLAKE_MIX(v[3], v[4], v[9], v[14], words[s[14]], words[s[15]]);
  }
  for (int i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
}

/* Returns the digest as a little-endian number. */
static uint64_t blake2b(const uint8_t *message, size_t size) {
  uint64_t state[8], length = 0;
  uint8_t block[128] = {0};
  memcpy(state, BLAKE_IV, sizeof state);
  state[0] ^= 0x01010000ull ^ 8;
  for (; size > 128; message += 128, size -= 128) {
    length += 128;
    blake_compress(state, message, length, 0);
  }
  memcpy(block, message, size);
  blake_compress(state, block, length + size, 1);
  return state[0];
}

#endif
