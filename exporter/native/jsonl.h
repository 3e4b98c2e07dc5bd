/* Rows as JSON Lines; the bytes and counts are those of exporter/formats/json.py. */
#ifndef JSONL_H
#define JSONL_H

/* Returns how many bytes these rows take at most, each followed by `separator_size` bytes, with the
   bytes that are written too many. */
API uint64_t json_room(const Page *page, const Plan *plan, uint32_t from, uint32_t to,
                       uint32_t separator_size) {
  uint64_t size = PAD, heads = 2;
  if (plan && plan->slot_count)
    heads += plan->head_ends[plan->slot_count - 1] + plan->slot_count;
  for (uint32_t i = from; i < to && i < page->row_count; i++) {
    /* U+0085, of two bytes, is escaped with six. */
    uint64_t factor = page->rows[i].flags & LINE_SEPARATOR ? 3 : 1;
    size += factor * page->rows[i].size + heads + separator_size;
  }
  return size;
}

static inline uint8_t *put_row(uint8_t *out, const Page *page, const Row *row) {
  const uint8_t *at = page->body + row->at, *end = at + row->size;
  if (LIKELY(!(row->flags & (BREAK | LINE_SEPARATOR)))) {
    memcpy(out, at, row->size);
    return out + row->size;
  }
  if (row->flags & BREAK) return copy_on_one_line(out, at, end, ALL_BLANKS | ESCAPE_SEPARATORS);
  return copy_escaping_separators(out, at, end, page->scan.last_block);
}

static inline uint8_t *put_columns(uint8_t *out, const Page *page, const Plan *plan,
                                   const Columns *columns, const Field *fields) {
  unsigned flags = 0;
  int is_first = 1;
  for (uint32_t slot = 0; slot < plan->slot_count; slot++)
    if (columns->found[slot] != NEVER) flags |= fields[columns->found[slot]].flags;
  *out++ = '{';
  for (uint32_t slot = 0; slot < plan->slot_count; slot++) {
    uint32_t begin = slot ? plan->head_ends[slot - 1] : 0;
    if (columns->found[slot] == NEVER) continue;
    const Field *field = &fields[columns->found[slot]];
    const uint8_t *at = page->body + field->at;
    if (!is_first) *out++ = ',';
    is_first = 0;
    memcpy(out, plan->heads + begin, plan->head_ends[slot] - begin);
    out += plan->head_ends[slot] - begin;
    /* A line break in one value costs all values their blanks. */
    if (LIKELY(!(flags & BREAK || field->flags & LINE_SEPARATOR))) {
      memcpy(out, at, field->size);
      out += field->size;
    } else {
      int how = ESCAPE_SEPARATORS | (flags & BREAK ? ALL_BLANKS : 0);
      out = copy_on_one_line(out, at, at + field->size, how);
    }
  }
  *out++ = '}';
  return out;
}

/* Writes the rows `from` to `to`, up to a row that is odd, with the separator after each: all fields,
   or with a plan only its columns. `out` has `json_room` bytes. Adds to `extras` and `present` like
   `csv_write`. Returns 0 if there is no memory. */
API int json_write(const Page *page, const Plan *plan, uint32_t from, uint32_t to,
                   const uint8_t *separator, uint32_t separator_size, uint8_t *out,
                   uint32_t *extras, uint8_t *present, Report *report) {
  Columns columns = {NULL, NULL, NULL};
  int is_made = !plan || columns_make(&columns, page, plan);
  *report = (Report){0, from, 0, 0, 0};
  if (is_made) {
    uint8_t *begin = out;
    uint32_t i = from;
    for (; i < to && !(page->rows[i].flags & ODD); i++) {
      if (plan) {
        columns_find(&columns, page, plan, i, extras, present);
        out = put_columns(out, page, plan, &columns, page->fields + page->rows[i].first);
      } else {
        out = put_row(out, page, &page->rows[i]);
      }
      memcpy(out, separator, separator_size);
      out += separator_size;
    }
    report->written = (uint64_t)(out - begin);
    report->next = i;
  }
  columns_free(&columns);
  return is_made;
}

#endif
