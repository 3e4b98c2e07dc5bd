/* A page of JSON, cut into rows and their fields in one pass. */
#ifndef PAGE_H
#define PAGE_H

#define NEVER 0xFFFFFFFFu
#define MAX_NAMES 4096
/* Different names of fields on one page; a page with more is left to the Python code. */
#define TABLE_MASK (2 * MAX_NAMES - 1)
#define MAX_PROBES 256
/* Names passed in the search for one; more than any page has whose names were not chosen to collide. */

/* Flag of a name that was only seen with escapes: its bytes here are not those of the source. */
#define UNSEEN 0x8000u

/* What `Page.digests` has in place of a digest. */
#define DIGEST_ASK 0  /* the Python code must read the id of this row */
#define DIGEST_NONE 1 /* the row has no id */

typedef struct {
  uint32_t at, size; /* of the value in the body */
  uint32_t name;
  uint16_t flags;
  uint8_t kind, unused;
} Field;

typedef struct {
  uint32_t at, size;     /* of the row in the body */
  uint32_t first, count; /* of its fields */
  uint32_t flags;
  uint32_t identity; /* the field with its id, or NEVER */
} Row;

typedef struct {
  uint32_t at, size; /* in `Page.names`; a quote follows there */
  uint32_t hash;
  uint32_t next; /* the name that last came after this one */
  uint32_t flags;
} Name;

typedef struct {
  /* Read by the binding, which has a copy of these declarations. */
  uint32_t row_count, name_count;
  uint32_t odd_rows;
  uint32_t padding;
  uint64_t list_begin, list_end; /* the list of rows in the body, brackets included */
  Row *rows;
  Name *names;
  uint8_t *name_bytes;
  uint64_t *digests; /* of the ids of the rows; NULL without an identity */
  /* Only for this library. */
  const uint8_t *body;
  size_t size;
  Field *fields;
  uint32_t field_count;
  uint32_t row_room, field_room, name_room, name_bytes_room, name_bytes_size, first_name;
  uint32_t table[TABLE_MASK + 1]; /* open addressing: names by their hash */
  uint8_t *scratch;
  uint32_t scratch_room;
  Scan scan;
} Page;

static void free_page(Page *page) {
  if (!page) return;
  free(page->rows), free(page->fields), free(page->names), free(page->name_bytes);
  free(page->digests), free(page->scratch), free(page->scan.nesting), free(page);
}

static inline uint32_t hash_of(const uint8_t *bytes, uint32_t size) {
  const uint64_t factor = 0x9E3779B97F4A7C15ull;
  uint64_t hash = size * factor, rest = 0;
  for (; size >= 8; size -= 8, bytes += 8) {
    hash = (hash ^ read_64(bytes)) * factor;
    hash ^= hash >> 29;
  }
  for (uint32_t i = 0; i < size; i++) rest |= (uint64_t)bytes[i] << (8 * i);
  return (uint32_t)(((hash ^ rest) * factor) >> 32);
}

/* Returns the place of a name in the table: that of the name, or a free one. */
static uint32_t place_of(const Page *page, const uint8_t *bytes, uint32_t size, uint32_t hash) {
  uint32_t place = hash & TABLE_MASK;
  for (; page->table[place] != NEVER; place = (place + 1) & TABLE_MASK) {
    const Name *name = &page->names[page->table[place]];
    if (name->hash == hash && name->size == size &&
        !memcmp(page->name_bytes + name->at, bytes, size))
      break;
  }
  return place;
}

/* Returns the number of a name, which is added if it is new; NEVER if there is no room. */
static uint32_t number_of(Page *page, const uint8_t *bytes, uint32_t size) {
  uint32_t hash = hash_of(bytes, size), place = place_of(page, bytes, size, hash);
  if (page->table[place] != NEVER) return page->table[place];
  if (page->name_count >= MAX_NAMES) return NEVER;
  if (((place - hash) & TABLE_MASK) > MAX_PROBES) return NEVER;
  if (page->name_count == page->name_room &&
      !grow(&page->names, &page->name_room, page->name_count + 1, sizeof(Name)))
    return NEVER;
  uint64_t needed = (uint64_t)page->name_bytes_size + size + 1 + PAD;
  if (needed > UINT32_MAX) return NEVER;
  if (needed > page->name_bytes_room &&
      !grow(&page->name_bytes, &page->name_bytes_room, (uint32_t)needed, 1))
    return NEVER;
  page->names[page->name_count] = (Name){page->name_bytes_size, size, hash, NEVER, UNSEEN};
  memcpy(page->name_bytes + page->name_bytes_size, bytes, size);
  page->name_bytes[page->name_bytes_size + size] = '"'; /* compared together with the name */
  page->name_bytes_size += size + 1;
  page->table[place] = page->name_count;
  return page->name_count++;
}

/* True if the name with the number `guess` is at `at`, followed by its closing quote. */
static inline int is_name(const Page *page, const uint8_t *at, uint32_t guess) {
  const Name *name = &page->names[guess];
  if (UNLIKELY(name->flags & UNSEEN)) return 0;
  const uint8_t *bytes = page->name_bytes + name->at;
  uint32_t size = name->size + 1;
#if BLOCK
  if (LIKELY(at <= page->scan.last_block && size <= 2 * BLOCK)) {
    if (size <= BLOCK) return !differs(at, bytes, size);
    return !differs(at, bytes, BLOCK) && !differs(at + BLOCK, bytes + BLOCK, size - BLOCK);
  }
#endif
  return size <= (size_t)(page->scan.end - at) && !memcmp(at, bytes, size);
}

/* Returns the number of the name at `*at`, after its opening quote; moves `*at` to the closing one.
   `guess` is the name that came here in the row before. Returns NEVER for what is no text. */
static inline uint32_t scan_name(Page *page, const uint8_t **at, uint32_t guess, unsigned *flags) {
  if (LIKELY(guess != NEVER) && is_name(page, *at, guess)) {
    *at += page->names[guess].size;
    *flags |= page->names[guess].flags;
    return guess;
  }
  const uint8_t *begin = *at;
  unsigned found = 0;
  if (!(*at = scan_text(&page->scan, begin, &found))) return NEVER;
  uint32_t number;
  if (UNLIKELY(found & ESCAPE)) {
    uint64_t needed = (uint64_t)(*at - begin) + PAD;
    if (needed > page->scratch_room &&
        !grow(&page->scratch, &page->scratch_room, (uint32_t)needed, 1))
      return NEVER;
    uint8_t *end = unescape(page->scratch, begin, *at, page->scan.last_block);
    number = number_of(page, page->scratch, (uint32_t)(end - page->scratch));
    *flags |= found & (ODD | LINE_SEPARATOR | LONE);
    if (found & LONE) *flags |= ODD;
    return number;
  }
  number = number_of(page, begin, (uint32_t)(*at - begin));
  *flags |= found & (ODD | LINE_SEPARATOR);
  if (number != NEVER && !(found & ODD)) page->names[number].flags = found & LINE_SEPARATOR;
  return number;
}

static const uint8_t *scan_row(Page *page, const uint8_t *at, uint32_t identity) {
  if (page->row_count == page->row_room &&
      !grow(&page->rows, &page->row_room, page->row_count + 1, sizeof(Row)))
    return NULL;
  Row *row = &page->rows[page->row_count];
  unsigned flags = 0;
  *row = (Row){(uint32_t)(at - page->body), 0, page->field_count, 0, 0, NEVER};
  if (UNLIKELY(*at != '{')) {
    uint8_t kind;
    if (!(at = scan_value(&page->scan, at, &kind, &flags))) return NULL;
    flags |= ODD;
  } else {
    uint32_t before = NEVER;
    at = skip_blanks(at + 1, &flags);
    if (*at != '}')
      for (;;) {
        if (*at++ != '"') return NULL;
        uint32_t guess = before == NEVER ? page->first_name : page->names[before].next;
        uint32_t name = scan_name(page, &at, guess, &flags);
        if (UNLIKELY(name == NEVER)) return NULL;
        if (before == NEVER) page->first_name = name;
        else page->names[before].next = name;
        before = name;
        at = skip_blanks(at + 1, &flags);
        if (*at != ':') return NULL;
        at = skip_blanks(at + 1, &flags);
        const uint8_t *begin = at;
        unsigned found = 0;
        uint8_t kind;
        if (!(at = scan_value(&page->scan, at, &kind, &found))) return NULL;
        if (UNLIKELY(page->field_count == page->field_room) &&
            !grow(&page->fields, &page->field_room, page->field_count + 1, sizeof(Field)))
          return NULL;
        if (name == identity) row->identity = page->field_count;
        page->fields[page->field_count++] =
            (Field){(uint32_t)(begin - page->body), (uint32_t)(at - begin), name,
                    (uint16_t)found, kind, 0};
        flags |= found;
        at = skip_blanks(at, &flags);
        if (*at == '}') break;
        if (*at != ',') return NULL;
        at = skip_blanks(at + 1, &flags);
      }
    at++;
  }
  row->size = (uint32_t)(at - page->body) - row->at;
  row->count = page->field_count - row->first;
  row->flags = flags;
  page->odd_rows += (flags & ODD) != 0;
  page->row_count++;
  return at;
}

static const uint8_t *scan_rows(Page *page, const uint8_t *at, uint32_t identity) {
  unsigned flags = 0;
  if (*at != '[' || page->list_end) return NULL;
  page->list_begin = (uint64_t)(at - page->body);
  at = skip_blanks(at + 1, &flags);
  if (*at != ']')
    for (;;) {
      if (!(at = scan_row(page, at, identity))) return NULL;
      at = skip_blanks(at, &flags);
      if (*at == ']') break;
      if (*at != ',') return NULL;
      at = skip_blanks(at + 1, &flags);
    }
  page->list_end = (uint64_t)(++at - page->body);
  return at;
}

/* Scans the object that has the rows under the name that `path` begins with, followed by a NUL. */
static const uint8_t *scan_envelope(Page *page, const uint8_t *at, const char *path,
                                    uint32_t levels, uint32_t identity) {
  if (!levels) return scan_rows(page, at, identity);
  size_t size = strlen(path);
  unsigned flags = 0;
  int is_found = 0;
  if (*at != '{') return NULL;
  at = skip_blanks(at + 1, &flags);
  for (;;) {
    if (*at++ != '"') return NULL;
    const uint8_t *begin = at;
    unsigned found = 0;
    uint8_t kind;
    if (!(at = scan_text(&page->scan, at, &found))) return NULL;
    /* An escaped name may be the name of the rows in another spelling. */
    if (found & (ODD | ESCAPE)) return NULL;
    int is_ours = (size_t)(at - begin) == size && !memcmp(begin, path, size);
    at = skip_blanks(at + 1, &flags);
    if (*at != ':') return NULL;
    at = skip_blanks(at + 1, &flags);
    if (is_ours && is_found++) return NULL;
    if (is_ours) at = scan_envelope(page, at, path + size + 1, levels - 1, identity);
    else at = scan_value(&page->scan, at, &kind, &found);
    if (!at || found & ODD) return NULL;
    at = skip_blanks(at, &flags);
    if (*at == '}') break;
    if (*at != ',') return NULL;
    at = skip_blanks(at + 1, &flags);
  }
  return is_found ? at + 1 : NULL;
}

/* Ids by which a row cannot be recognized; see exporter/run/row_ids.py. */
static const char *const NO_IDS[] = {"null", "\"\"", "{}", "[]"};
static const char *const UNSET_IDS[] = {"0", "-0", "0.0", "false",
                                        "\"00000000-0000-0000-0000-000000000000\""};

static int is_one_of(const uint8_t *text, uint32_t size, const char *const *words, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (strlen(words[i]) == size && !memcmp(text, words[i], size)) return 1;
  return 0;
}

static uint64_t digest_of_row(const Page *page, const Row *row) {
  if (row->flags & (ODD | LONE)) return DIGEST_ASK;
  if (row->identity == NEVER) return DIGEST_NONE;
  const Field *field = &page->fields[row->identity];
  const uint8_t *text = page->body + field->at;
  uint32_t size = field->size;
  if (is_one_of(text, size, NO_IDS, 4)) return DIGEST_NONE;
  if (is_one_of(text, size, UNSET_IDS, 5)) text = page->body + row->at, size = row->size;
  else if (field->kind == TEXT) {
    uint8_t first = text[1];
    /* It may be a text of blanks, some of which are not ASCII. */
    if (!is_digit(first) && (uint8_t)((first | 32) - 'a') >= 26) return DIGEST_ASK;
  }
  uint64_t digest = blake2b(text, size);
  return digest > DIGEST_NONE ? digest : DIGEST_ASK;
}

/* Returns the rows of a page; NULL for a page that the Python code must read.

   The rows are the list that the names of `path`, each ended by a NUL, lead to. `identity` is the
   name of the field with the id of a row, or NULL. A NUL must follow the body, and the body must
   outlive the page. */
API Page *page_cut(const uint8_t *body, size_t size, const char *path, uint32_t levels,
                   const uint8_t *identity, uint32_t identity_size) {
  if (size >= 0x7FFFFFFF) return NULL;
  Page *page = calloc(1, sizeof(Page));
  if (!page) return NULL;
  page->body = body, page->size = size;
  page->scan.end = body + size;
  page->scan.last_block = size >= PAD ? body + size - PAD : NULL;
  page->first_name = NEVER;
  memset(page->table, 0xFF, sizeof page->table);
  int has_room =
      grow(&page->rows, &page->row_room, 256, sizeof(Row)) &&
      grow(&page->fields, &page->field_room, (uint32_t)(size / 64) + 64, sizeof(Field)) &&
      grow(&page->names, &page->name_room, 64, sizeof(Name)) &&
      grow(&page->name_bytes, &page->name_bytes_room, 2048, 1) &&
      grow(&page->scan.nesting, &page->scan.nesting_room, 16, 8);
  uint32_t number = has_room && identity ? number_of(page, identity, identity_size) : NEVER;
  unsigned flags = 0;
  const uint8_t *at = NULL;
  if (has_room)
    at = scan_envelope(page, skip_blanks(body, &flags), path, levels, number);
  if (at) at = skip_blanks(at, &flags);
  if (at != page->scan.end) goto refuse;
  if (identity) {
    if (!(page->digests = malloc((page->row_count + 1) * 8ull))) goto refuse;
    for (uint32_t i = 0; i < page->row_count; i++)
      page->digests[i] = digest_of_row(page, &page->rows[i]);
  }
  return page;

refuse:
  free_page(page);
  return NULL;
}

API void page_free(Page *page) { free_page(page); }

#endif
