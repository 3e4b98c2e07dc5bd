/* Rows as CSV lines; the bytes and counts are those of exporter/formats/csv.py. */
#ifndef CSV_H
#define CSV_H

static const uint8_t MAY_BEGIN_FORMULA[256] = {
    ['='] = 1,  ['+'] = 1,  ['-'] = 1,  ['@'] = 1,  [' '] = 1,   ['\t'] = 1,
    ['\n'] = 1, ['\r'] = 1, ['\v'] = 1, ['\f'] = 1, [0xEF] = 1};

/* A call that writes CSV: two scratch areas, each with room for every cell. */
typedef struct {
  const Page *page;
  const Plan *plan;
  Report *report;
  uint8_t *cell, *guarded;
  const uint8_t *last_cell_block, *last_guarded_block;
} CsvWriter;

static inline uint8_t *put_quoted(uint8_t *out, const uint8_t *value, const uint8_t *end,
                                  const uint8_t *last_block) {
  *out++ = '"';
  out = copy_doubling(out, value, end, last_block);
  *out++ = '"';
  return out;
}

/* Writes the cell of a value, guarded if the plan says so. `last_block` is that of the memory in which
   the value is. */
static uint8_t *put_value(CsvWriter *writer, uint8_t *out, const uint8_t *value,
                          const uint8_t *end, const uint8_t *last_block, int needs_quotes) {
  if (value == end) return put_quoted(out, value, end, last_block);
  if (writer->plan->guard) {
    int is_split = guard_separated(value, end, last_block, NULL) > 0;
    if (is_split) {
      uint8_t *to = writer->guarded;
      guard_separated(value, end, last_block, &to);
      value = writer->guarded, end = to, last_block = writer->last_guarded_block;
    }
    int begins_formula = MAY_BEGIN_FORMULA[*value] && is_formula(value, end);
    if (is_split || begins_formula) {
      writer->report->guarded++;
      *out++ = '"';
      if (begins_formula) *out++ = '\'';
      out = copy_doubling(out, value, end, last_block);
      *out++ = '"';
      return out;
    }
  }
  if (needs_quotes) return put_quoted(out, value, end, last_block);
  return copy(out, value, (size_t)(end - value), last_block);
}

static inline uint8_t *put_text(CsvWriter *writer, uint8_t *out, const uint8_t *at,
                                const uint8_t *end, unsigned flags) {
  const uint8_t *last_block = writer->page->scan.last_block;
  int needs_quotes = (flags & COMMA) != 0, guard = writer->plan->guard;
  if (UNLIKELY(at == end)) {
    *out++ = '"', *out++ = '"';
    return out;
  }
  if (LIKELY(!(flags & ESCAPE))) {
    /* Without escapes, a text has neither quotes nor line breaks, and ; is its only separator. */
    if (guard && (MAY_BEGIN_FORMULA[*at] || memchr(at, ';', (size_t)(end - at))))
      return put_value(writer, out, at, end, last_block, needs_quotes);
    if (needs_quotes) *out++ = '"';
    out = copy(out, at, (size_t)(end - at), last_block);
    if (needs_quotes) *out++ = '"';
    return out;
  }
  Unescaped found = {needs_quotes, 0};
  if (guard) {
    uint8_t *to = unescape_to(writer->cell, at, end, last_block, 0, &found);
    writer->report->replaced += found.replaced;
    return put_value(writer, out, writer->cell, to, writer->last_cell_block, found.needs_quotes);
  }
  uint8_t *to = unescape_to(out + 1, at, end, last_block, 1, &found);
  writer->report->replaced += found.replaced;
  if (found.needs_quotes) {
    *out = '"', *to = '"';
    return to + 1;
  }
  memmove(out, out + 1, (size_t)(to - out - 1));
  return to - 1;
}

static uint8_t *put_nested(CsvWriter *writer, uint8_t *out, const uint8_t *at, const uint8_t *end,
                           unsigned flags) {
  const uint8_t *last_block = writer->page->scan.last_block;
  int needs_quotes = (flags & (QUOTE | COMMA)) != 0, guard = writer->plan->guard;
  int is_changed = flags & BREAK || (guard && flags & TAB);
  int how = guard ? TABS_TO_SPACES : 0;
  if (guard && memchr(at, ';', (size_t)(end - at))) {
    if (is_changed) {
      end = copy_on_one_line(writer->cell, at, end, how);
      at = writer->cell, last_block = writer->last_cell_block;
    }
    return put_value(writer, out, at, end, last_block, needs_quotes);
  }
  if (needs_quotes) *out++ = '"';
  if (UNLIKELY(is_changed)) out = copy_on_one_line(out, at, end, how | DOUBLING);
  else if (flags & QUOTE) out = copy_doubling(out, at, end, last_block);
  else out = copy(out, at, (size_t)(end - at), last_block);
  if (needs_quotes) *out++ = '"';
  return out;
}

/* Writes the values of a list, separated by "; ". */
static uint8_t *put_joined(CsvWriter *writer, uint8_t *out, const uint8_t *at) {
  Scan scan = writer->page->scan; /* its nesting has room for each value that was scanned before */
  uint8_t *to = writer->cell;
  Unescaped found = {0, 0};
  unsigned flags = 0;
  at = skip_blanks(at + 1, &flags);
  for (int is_first = 1; *at != ']'; is_first = 0) {
    const uint8_t *begin = at;
    uint8_t kind;
    unsigned inside = 0;
    at = scan_value(&scan, at, &kind, &inside);
    if (!is_first) *to++ = ';', *to++ = ' ';
    found.needs_quotes |= (inside & (COMMA | QUOTE)) != 0;
    if (kind == TEXT) to = unescape_to(to, begin + 1, at - 1, scan.last_block, 0, &found);
    else if (kind != NULL_VALUE && inside & BREAK) to = copy_on_one_line(to, begin, at, 0);
    else if (kind != NULL_VALUE) to = copy(to, begin, (size_t)(at - begin), scan.last_block);
    at = skip_blanks(at, &flags);
    if (*at == ',') at = skip_blanks(at + 1, &flags);
  }
  writer->report->replaced += found.replaced;
  return put_value(writer, out, writer->cell, to, writer->last_cell_block, found.needs_quotes);
}

static inline uint8_t *put_cell(CsvWriter *writer, uint8_t *out, const Field *field) {
  const uint8_t *at = writer->page->body + field->at, *end = at + field->size;
  switch (field->kind) {
    case TEXT: return put_text(writer, out, at + 1, end - 1, field->flags);
    case LIST:
      if (writer->plan->joined) return put_joined(writer, out, at);
      return put_nested(writer, out, at, end, field->flags);
    case OBJECT: return put_nested(writer, out, at, end, field->flags);
    case FLAG:
    case NUMBER: return copy(out, at, field->size, writer->page->scan.last_block);
  }
  /* null: empty, but a line without any byte would be skipped by readers */
  if (writer->plan->column_count == 1) *out++ = '"', *out++ = '"';
  return out;
}

/* Returns how many bytes the lines of these rows take at most, with the bytes that are written too
   many. A byte becomes at most two, by a quote that is doubled, or by a separator with an apostrophe
   after it, which comes before two bytes at least. */
API uint64_t csv_room(const Page *page, const Plan *plan, uint32_t from, uint32_t to) {
  uint64_t size = PAD;
  for (uint32_t i = from; i < to && i < page->row_count; i++)
    size += 3ull * page->rows[i].size * (plan->max_repeats ? plan->max_repeats : 1) +
            4ull * plan->column_count + 4;
  return size;
}

/* Writes the lines of the rows `from` to `to`, up to a row that is odd. `out` has `csv_room` bytes.
   Adds to `extras`, by name of the page, and `present`, by slot. Returns 0 if there is no memory. */
API int csv_write(const Page *page, const Plan *plan, uint32_t from, uint32_t to, uint8_t *out,
                  uint32_t *extras, uint8_t *present, Report *report) {
  static const Field ABSENT = {0, 0, 0, 0, NULL_VALUE, 0};
  size_t largest = 0;
  for (uint32_t i = from; i < to; i++)
    if (page->rows[i].size > largest) largest = page->rows[i].size;
  size_t room = 2 * largest + 2 * PAD;
  Columns columns = {NULL, NULL, NULL};
  uint8_t *scratch = malloc(2 * room);
  int is_made = columns_make(&columns, page, plan) && scratch;
  *report = (Report){0, from, 0, 0, 0};
  if (is_made) {
    CsvWriter writer = {page, plan, report, scratch, scratch + room, scratch + room - PAD,
                        scratch + 2 * room - PAD};
    uint8_t *begin = out;
    uint32_t i = from;
    for (; i < to && !(page->rows[i].flags & ODD); i++) {
      const Field *fields = page->fields + page->rows[i].first;
      columns_find(&columns, page, plan, i, extras, present);
      for (uint32_t c = 0; c < plan->column_count; c++) {
        uint32_t found = columns.found[plan->slots[c]];
        if (c) *out++ = ',';
        out = put_cell(&writer, out, found == NEVER ? &ABSENT : &fields[found]);
      }
      *out++ = '\r', *out++ = '\n';
    }
    report->written = (uint64_t)(out - begin);
    report->next = i;
  }
  free(scratch);
  columns_free(&columns);
  return is_made;
}

#endif
