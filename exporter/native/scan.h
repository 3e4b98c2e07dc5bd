/* Scanning of JSON: where a value ends, and what it contains. A subset of JSON is accepted; what is
   valid JSON in a wider sense only (NaN, raw control characters, bytes that are not UTF-8) is marked
   ODD. Every function returns NULL for text that is not JSON.

   The text ends with a NUL that does not belong to it. A scan stops there by itself, because a NUL is
   no part of any token, so no function looks beyond the NUL. */
#ifndef SCAN_H
#define SCAN_H

enum Kind { NOTHING, NULL_VALUE, FLAG, NUMBER, TEXT, LIST, OBJECT };

/* What a value, or a row, contains. */
enum {
  ESCAPE = 1,   /* a backslash; of a text only */
  COMMA = 2,    /* a comma, anywhere in the value */
  QUOTE = 4,    /* a text inside a list or an object */
  BREAK = 8,    /* a line break between tokens */
  LINE_SEPARATOR = 16, /* U+0085, U+2028 or U+2029, not escaped */
  ODD = 32,     /* what only the Python code can write */
  LONE = 64,    /* an escaped half of a surrogate pair */
  TAB = 128     /* a tab between tokens */
};

#define MAX_DEPTH 128
/* Values that are nested more deeply are ODD. */

/* Value of a hexadecimal digit plus 1; 0 for any other byte. */
static const uint8_t HEX[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16};
/* The character for which a backslash with this byte stands; 0 for any other byte. */
static const uint8_t ESCAPED[256] = {['"'] = '"', ['\\'] = '\\', ['/'] = '/',  ['b'] = '\b',
                                     ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r', ['t'] = '\t'};

/* A JSON text that is being scanned. */
typedef struct {
  const uint8_t *end;
  const uint8_t *last_block; /* the last position from which PAD bytes can be read */
  uint64_t *nesting;         /* one bit for each level: 1 for an object, 0 for a list */
  uint32_t nesting_room;     /* in words of 64 bits */
} Scan;

static inline uint64_t read_64(const uint8_t *from) {
  uint64_t value;
  memcpy(&value, from, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  value = __builtin_bswap64(value);
#endif
  return value;
}

static inline int is_digit(uint8_t byte) { return (uint8_t)(byte - '0') < 10; }

/* Returns the end of one character that is not ASCII; NULL if the bytes are not UTF-8. */
static inline const uint8_t *scan_wide(const uint8_t *at, unsigned *flags) {
  uint8_t first = at[0], second = at[1];
  if (first < 0xC2 || (second & 0xC0) != 0x80) return NULL;
  if (first < 0xE0) {
    if (first == 0xC2 && second == 0x85) *flags |= LINE_SEPARATOR;
    return at + 2;
  }
  if (first < 0xF0) {
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F)) return NULL;
    if ((at[2] & 0xC0) != 0x80) return NULL;
    if (first == 0xE2 && second == 0x80 && (at[2] & 0xFE) == 0xA8) *flags |= LINE_SEPARATOR;
    return at + 3;
  }
  if (first > 0xF4 || (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F))
    return NULL;
  if ((at[2] & 0xC0) != 0x80 || (at[3] & 0xC0) != 0x80) return NULL;
  return at + 4;
}

/* Returns the end of the escape at a backslash; NULL for an escape that JSON does not have. */
static inline const uint8_t *scan_escape(const uint8_t *at, unsigned *flags) {
  if (LIKELY(ESCAPED[at[1]])) return at + 2;
  if (at[1] != 'u' || !HEX[at[2]] || !HEX[at[3]] || !HEX[at[4]] || !HEX[at[5]]) return NULL;
  if (LIKELY((at[2] | 32) != 'd' || HEX[at[3]] < 9)) return at + 6;
  int is_high = HEX[at[3]] < 13;
  if (is_high && at[6] == '\\' && at[7] == 'u' && (at[8] | 32) == 'd' && HEX[at[9]] >= 13 &&
      HEX[at[10]] && HEX[at[11]])
    return at + 12;
  *flags |= LONE;
  return at + 6;
}

/* Returns the closing quote of a text, given the position after its opening quote. */
static inline const uint8_t *scan_text(const Scan *scan, const uint8_t *at, unsigned *flags) {
  unsigned found = 0;
  uint64_t commas = 0;
  for (;;) {
#if BLOCK
    if (LIKELY(at <= scan->last_block)) {
      Block bytes = load(at);
      Mask stop = stops(bytes), comma = equal(bytes, ',');
      while (!stop) {
        commas |= comma;
        at += BLOCK;
        if (UNLIKELY(at > scan->last_block)) goto bytewise;
        bytes = load(at);
        stop = stops(bytes), comma = equal(bytes, ',');
      }
      commas |= comma & ((stop & (~stop + 1)) - 1); /* those before the stop */
      at += FIRST(stop);
    } else
    bytewise:
#endif
      while (*at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\') commas |= *at++ == ',';
    if (LIKELY(*at == '"')) {
      *flags |= found | (commas ? COMMA : 0);
      return at;
    }
    if (*at == '\\') {
      found |= ESCAPE;
      if (!(at = scan_escape(at, &found))) return NULL;
    } else if (*at >= 0x80) {
      do {
        const uint8_t *next = scan_wide(at, &found);
        if (UNLIKELY(!next)) found |= ODD, next = at + 1;
        at = next;
      } while (*at >= 0x80);
    } else {
      if (at >= scan->end) return NULL;
      found |= ODD, at++; /* a raw control character */
    }
  }
}

static inline const uint8_t *skip_blanks(const uint8_t *at, unsigned *flags) {
  for (; UNLIKELY(*at <= 0x20); at++) {
    if (*at == '\n' || *at == '\r') *flags |= BREAK;
    else if (*at == '\t') *flags |= TAB;
    else if (*at != ' ') break;
  }
  return at;
}

static inline const uint8_t *scan_number(const uint8_t *at) {
  if (*at == '-') at++;
  if (*at == '0') at++;
  else if (!is_digit(*at)) return NULL;
  else while (is_digit(*at)) at++;
  if (*at == '.') {
    if (!is_digit(*++at)) return NULL;
    while (is_digit(*at)) at++;
  }
  if ((*at | 32) == 'e') {
    at++;
    if (*at == '+' || *at == '-') at++;
    if (!is_digit(*at)) return NULL;
    while (is_digit(*at)) at++;
  }
  return at;
}

static inline const uint8_t *scan_word(const uint8_t *at, const char *word) {
  for (; *word; at++, word++)
    if (*at != (uint8_t)*word) return NULL;
  return at;
}

/* Scans a value that is neither a text nor a list nor an object. */
static inline const uint8_t *scan_plain(const uint8_t *at, uint8_t *kind, unsigned *flags) {
  *kind = FLAG;
  switch (*at) {
    case 't': return scan_word(at, "true");
    case 'f': return scan_word(at, "false");
    case 'n': *kind = NULL_VALUE; return scan_word(at, "null");
    case 'N': *flags |= ODD; return scan_word(at, "NaN");
    case 'I': *flags |= ODD; return scan_word(at, "Infinity");
    case '-':
      if (at[1] == 'I') {
        *flags |= ODD;
        return scan_word(at, "-Infinity");
      }
  }
  *kind = NUMBER;
  return scan_number(at);
}

/* Makes room for `needed` elements; returns 0 if there is no memory. `array` is the address of a
   pointer of any type. */
static int grow(void *array, uint32_t *room, uint32_t needed, size_t element_size) {
  uint64_t wanted = *room ? *room : 64;
  while (wanted < needed) wanted += wanted / 2 + 64;
  if (wanted > UINT32_MAX) return 0;
  void *moved;
  memcpy(&moved, array, sizeof moved);
  if (!(moved = realloc(moved, (size_t)wanted * element_size))) return 0;
  memcpy(array, &moved, sizeof moved);
  *room = (uint32_t)wanted;
  return 1;
}

/* Scans a list or an object. Uses no recursion, so the depth is bounded by memory alone. */
static const uint8_t *scan_nested(Scan *scan, const uint8_t *at, unsigned *flags) {
  uint32_t depth = 0;
  unsigned found = 0;
  uint8_t kind;
  int is_object;

open:
  if (UNLIKELY((depth >> 6) >= scan->nesting_room) &&
      !grow(&scan->nesting, &scan->nesting_room, (depth >> 6) + 1, 8))
    return NULL;
  is_object = *at == '{';
  if (is_object) scan->nesting[depth >> 6] |= 1ull << (depth & 63);
  else scan->nesting[depth >> 6] &= ~(1ull << (depth & 63));
  if (UNLIKELY(++depth > MAX_DEPTH)) found |= ODD;
  at = skip_blanks(at + 1, &found);
  if (*at == (is_object ? '}' : ']')) goto close;
  if (!is_object) goto value;

member:
  if (*at != '"' || !(at = scan_text(scan, at + 1, &found))) return NULL;
  found |= QUOTE;
  at = skip_blanks(at + 1, &found);
  if (*at != ':') return NULL;
  at = skip_blanks(at + 1, &found);

value:
  if (*at == '"') {
    found |= QUOTE;
    if (!(at = scan_text(scan, at + 1, &found))) return NULL;
    at++;
  } else if (*at == '{' || *at == '[') {
    goto open;
  } else if (!(at = scan_plain(at, &kind, &found))) {
    return NULL;
  }

after:
  at = skip_blanks(at, &found);
  is_object = (scan->nesting[(depth - 1) >> 6] >> ((depth - 1) & 63)) & 1;
  if (*at == ',') {
    found |= COMMA;
    at = skip_blanks(at + 1, &found);
    if (is_object) goto member;
    goto value;
  }
  if (*at != (is_object ? '}' : ']')) return NULL;

close:
  at++;
  if (--depth) goto after;
  *flags |= found & ~(unsigned)ESCAPE;
  return at;
}

/* Returns the end of the value at `at`. */
static inline const uint8_t *scan_value(Scan *scan, const uint8_t *at, uint8_t *kind,
                                        unsigned *flags) {
  if (*at == '"') {
    *kind = TEXT;
    at = scan_text(scan, at + 1, flags);
    return at ? at + 1 : NULL;
  }
  if (*at == '{' || *at == '[') {
    *kind = *at == '{' ? OBJECT : LIST;
    return scan_nested(scan, at, flags);
  }
  return scan_plain(at, kind, flags);
}

#endif
