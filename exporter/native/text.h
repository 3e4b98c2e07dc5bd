/* Writing of texts and of JSON. Every function returns the end of what it wrote, may write up to PAD
   bytes more, and reads only text that a scan has accepted. */
#ifndef TEXT_H
#define TEXT_H

static inline uint32_t hex_4(const uint8_t *at) {
  return (uint32_t)(HEX[at[0]] - 1) << 12 | (uint32_t)(HEX[at[1]] - 1) << 8 |
         (uint32_t)(HEX[at[2]] - 1) << 4 | (uint32_t)(HEX[at[3]] - 1);
}

static inline uint8_t *put_utf8(uint8_t *out, uint32_t code) {
  if (code < 0x80) {
    *out++ = (uint8_t)code;
  } else if (code < 0x800) {
    *out++ = (uint8_t)(0xC0 | code >> 6);
    *out++ = (uint8_t)(0x80 | (code & 63));
  } else if (code < 0x10000) {
    *out++ = (uint8_t)(0xE0 | code >> 12);
    *out++ = (uint8_t)(0x80 | (code >> 6 & 63));
    *out++ = (uint8_t)(0x80 | (code & 63));
  } else {
    *out++ = (uint8_t)(0xF0 | code >> 18);
    *out++ = (uint8_t)(0x80 | (code >> 12 & 63));
    *out++ = (uint8_t)(0x80 | (code >> 6 & 63));
    *out++ = (uint8_t)(0x80 | (code & 63));
  }
  return out;
}

/* What `unescape_to` found. */
typedef struct {
  int needs_quotes;  /* an escape stands for a quote, a comma or a line break */
  uint32_t replaced; /* halves of surrogate pairs, written as U+FFFD */
} Unescaped;

/* Writes the characters of a text, given without its quotes; with `doubling`, quotes twice. */
static inline uint8_t *unescape_to(uint8_t *out, const uint8_t *at, const uint8_t *end,
                                   const uint8_t *last_block, int doubling, Unescaped *found) {
  (void)last_block;
  for (;;) {
#if BLOCK
    while (at <= last_block) {
      Block bytes = load(at);
      store(out, bytes);
      Mask escapes = equal(bytes, '\\');
      unsigned count = escapes ? FIRST(escapes) : BLOCK;
      if (at + count >= end) return out + (end - at);
      at += count, out += count;
      if (escapes) goto escape;
    }
#endif
    while (at < end && *at != '\\') *out++ = *at++;
    if (at >= end) return out;
#if BLOCK
  escape:;
#endif
    uint32_t code;
    if (LIKELY(at[1] != 'u')) {
      code = ESCAPED[at[1]];
      at += 2;
    } else {
      code = hex_4(at + 2);
      at += 6;
      if (UNLIKELY((code & 0xF800) == 0xD800)) {
        uint32_t low = 0;
        if (code < 0xDC00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') low = hex_4(at + 2);
        if ((low & 0xFC00) == 0xDC00) {
          code = 0x10000 + ((code & 0x3FF) << 10 | (low & 0x3FF));
          at += 6;
        } else {
          code = 0xFFFD;
          found->replaced++;
        }
      }
    }
    found->needs_quotes |= code == '"' || code == ',' || code == '\n' || code == '\r';
    if (doubling && code == '"') *out++ = '"';
    out = put_utf8(out, code);
    if (at >= end) return out;
  }
}

/* Writes the characters of a text. */
static uint8_t *unescape(uint8_t *out, const uint8_t *at, const uint8_t *end,
                         const uint8_t *last_block) {
  Unescaped found = {0, 0};
  return unescape_to(out, at, end, last_block, 0, &found);
}

static inline uint8_t *copy(uint8_t *out, const uint8_t *at, size_t size,
                            const uint8_t *last_block) {
#if BLOCK
  if (LIKELY(size <= BLOCK && at <= last_block)) {
    store(out, load(at));
    return out + size;
  }
#else
  (void)last_block;
#endif
  memcpy(out, at, size);
  return out + size;
}

/* Writes bytes with each quote twice. */
static inline uint8_t *copy_doubling(uint8_t *out, const uint8_t *at, const uint8_t *end,
                                     const uint8_t *last_block) {
#if BLOCK
  while (at <= last_block) {
    Block bytes = load(at);
    store(out, bytes);
    Mask quotes = equal(bytes, '"');
    unsigned count = quotes ? FIRST(quotes) : BLOCK;
    if (at + count >= end) return out + (end - at);
    at += count, out += count;
    if (quotes) at++, *out++ = '"', *out++ = '"';
    if (at >= end) return out;
  }
#else
  (void)last_block;
#endif
  for (; at < end; at++) {
    *out++ = *at;
    if (*at == '"') *out++ = '"';
  }
  return out;
}

static inline int is_blank(uint8_t byte) {
  return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

/* Returns the size of the line separator at `at`, or 0; its escape is at `*escape`. */
static inline unsigned line_separator(const uint8_t *at, const uint8_t *end, const char **escape) {
  if (*at == 0xC2 && end - at >= 2 && at[1] == 0x85) {
    *escape = "\\u0085";
    return 2;
  }
  if (*at == 0xE2 && end - at >= 3 && at[1] == 0x80 && (at[2] & 0xFE) == 0xA8) {
    *escape = at[2] & 1 ? "\\u2029" : "\\u2028";
    return 3;
  }
  return 0;
}

enum { ALL_BLANKS = 1, TABS_TO_SPACES = 2, ESCAPE_SEPARATORS = 4, DOUBLING = 8 };

/* Writes JSON on one line: without the blanks around line breaks between tokens, or with ALL_BLANKS
   without any blank between tokens. With TABS_TO_SPACES, each tab that stays becomes a space. With
   ESCAPE_SEPARATORS, U+0085, U+2028 and U+2029 are escaped. With DOUBLING, quotes are written
   twice. */
static uint8_t *copy_on_one_line(uint8_t *out, const uint8_t *at, const uint8_t *end, int how) {
  int is_inside = 0; /* of a text */
  while (at < end) {
    uint8_t byte = *at;
    const char *escape;
    unsigned size;
    if (!is_inside && is_blank(byte)) {
      const uint8_t *begin = at;
      int has_break = 0;
      for (; at < end && is_blank(*at); at++) has_break |= *at == '\n' || *at == '\r';
      if (!has_break && !(how & ALL_BLANKS))
        for (; begin < at; begin++)
          *out++ = *begin == '\t' && how & TABS_TO_SPACES ? ' ' : *begin;
      continue;
    }
    if (byte == '"') {
      is_inside = !is_inside;
      if (how & DOUBLING) *out++ = '"';
    } else if (byte == '\\') {
      *out++ = byte;
      byte = *++at;
      if (byte == '"' && how & DOUBLING) *out++ = '"';
    } else if (how & ESCAPE_SEPARATORS && (size = line_separator(at, end, &escape))) {
      memcpy(out, escape, 6);
      out += 6, at += size;
      continue;
    }
    *out++ = byte;
    at++;
  }
  return out;
}

/* Writes JSON with U+0085, U+2028 and U+2029 escaped. */
static uint8_t *copy_escaping_separators(uint8_t *out, const uint8_t *at, const uint8_t *end,
                                         const uint8_t *last_block) {
  for (;;) {
#if BLOCK
    while (at <= last_block) {
      Block bytes = load(at);
      store(out, bytes);
      Mask firsts = equal(bytes, 0xC2) | equal(bytes, 0xE2);
      unsigned count = firsts ? FIRST(firsts) : BLOCK;
      if (at + count >= end) return out + (end - at);
      at += count, out += count;
      if (firsts) break;
    }
#else
    (void)last_block;
#endif
    while (at < end && *at != 0xC2 && *at != 0xE2) *out++ = *at++;
    if (at >= end) return out;
    const char *escape;
    unsigned size = line_separator(at, end, &escape);
    if (size) {
      memcpy(out, escape, 6);
      out += 6, at += size;
    } else {
      *out++ = *at++;
    }
    if (at >= end) return out;
  }
}

#endif
