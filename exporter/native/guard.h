/* Formulas in cells: the apostrophes without which a spreadsheet would run a text. The rules are
   those of exporter/formats/csv.py. */
#ifndef GUARD_H
#define GUARD_H

static inline int is_separator(uint8_t byte) {
  return byte == ';' || byte == '\t' || byte == '\n' || byte == '\r';
}

/* Returns the size of the formula sign at `at` (= + - @ or their full-width forms), or 0. */
static inline unsigned sign_size(const uint8_t *at, const uint8_t *end) {
  if (at >= end) return 0;
  if (*at == '=' || *at == '+' || *at == '-' || *at == '@') return 1;
  if (*at != 0xEF || end - at < 3 || at[1] != 0xBC) return 0;
  return at[2] == 0x9D || at[2] == 0x8B || at[2] == 0x8D || at[2] == 0xA0 ? 3 : 0;
}

/* Returns the end of the decimal number that begins at `at`; NULL if none does. */
static const uint8_t *number_end(const uint8_t *at, const uint8_t *end) {
  const uint8_t *digits;
  if (at < end && (*at == '+' || *at == '-')) at++;
  digits = at;
  while (at < end && is_digit(*at)) at++;
  int has_whole = at > digits;
  if (at < end && *at == '.') {
    digits = ++at;
    while (at < end && is_digit(*at)) at++;
    if (!has_whole && at == digits) return NULL;
  } else if (!has_whole) {
    return NULL;
  }
  if (at < end && (*at | 32) == 'e') {
    const uint8_t *exponent = at + 1;
    if (exponent < end && (*exponent == '+' || *exponent == '-')) exponent++;
    if (exponent < end && is_digit(*exponent)) {
      for (at = exponent; at < end && is_digit(*at);) at++;
    }
  }
  return at;
}

/* True if a spreadsheet takes the text for a formula, and it is not a plain number. */
static int is_formula(const uint8_t *text, const uint8_t *end) {
  if (text == end) return 0;
  if (*text != '\t' && *text != '\r') {
    const uint8_t *at = text;
    while (at < end && (*at == ' ' || (*at >= '\t' && *at <= '\r'))) at++;
    if (!sign_size(at, end)) return 0;
  }
  return number_end(text, end) != end;
}

/* Returns the position of the next separator, or `end`. */
static inline const uint8_t *next_separator(const uint8_t *at, const uint8_t *end,
                                            const uint8_t *last_block) {
#if BLOCK
  for (; at <= last_block && at < end; at += BLOCK) {
    Block bytes = load(at);
    Mask found = equal(bytes, ';') | equal(bytes, '\t') | equal(bytes, '\n') | equal(bytes, '\r');
    if (!found) continue;
    at += FIRST(found);
    return at < end ? at : end;
  }
#else
  (void)last_block;
#endif
  while (at < end && !is_separator(*at)) at++;
  return at < end ? at : end;
}

/* Writes a text with an apostrophe before each formula that may begin after a separator inside it;
   returns the number of apostrophes. Without `out`, only counts them. */
static size_t guard_separated(const uint8_t *at, const uint8_t *end, const uint8_t *last_block,
                              uint8_t **out) {
  size_t count = 0;
  uint8_t *to = out ? *out : NULL;
  while (at < end) {
    const uint8_t *begin = at;
    int begins_cell = 0; /* as opposed to a line of the same cell */
    at = next_separator(at, end, last_block);
    for (; at < end && (is_separator(*at) || *at == ' ' || *at == '\v' || *at == '\f' ||
                        *at == '"'); at++)
      begins_cell |= *at == ';' || *at == '\t';
    unsigned sign = sign_size(at, end);
    int is_guarded = 0;
    if (sign) {
      const uint8_t *number = number_end(at, end), *after = at + sign;
      int is_number = number && (number == end || is_separator(*number));
      int has_blank = after < end && (*after == ' ' || (*after == 0xC2 && end - after >= 2 &&
                                                        after[1] == 0xA0));
      int is_list_mark = has_blank && (*at == '+' || *at == '-') && !begins_cell;
      is_guarded = !is_number && !is_list_mark;
    }
    if (to) {
      memcpy(to, begin, (size_t)(at - begin));
      to += at - begin;
      if (is_guarded) *to++ = '\'';
      memcpy(to, at, sign);
      to += sign;
    }
    at += sign;
    count += (size_t)is_guarded;
  }
  if (out) *out = to;
  return count;
}

#endif
