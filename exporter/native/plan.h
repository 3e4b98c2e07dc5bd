/* The columns of a file, and what a call of the library reports. */
#ifndef PLAN_H
#define PLAN_H

typedef struct {
  uint32_t column_count;
  uint32_t slot_count; /* different columns: a column may come twice */
  uint32_t max_repeats; /* how often the most frequent column comes */
  int guard, joined;
  uint32_t *slots;      /* by column */
  uint32_t *name_ends;  /* by slot, in `names` */
  uint32_t *head_ends;  /* by slot, in `heads` */
  uint8_t *names;
  uint8_t *heads; /* the names as JSON Lines have them, with quotes and colon */
} Plan;

/* Written by the library; the binding has a copy of this declaration. */
typedef struct {
  uint64_t written;  /* bytes */
  uint32_t next;     /* the row after those that were written */
  uint32_t guarded;  /* cells with an apostrophe */
  uint32_t replaced; /* halves of surrogate pairs */
  uint32_t padding;
} Report;

API void plan_free(Plan *plan) {
  if (!plan) return;
  free(plan->slots), free(plan->name_ends), free(plan->head_ends);
  free(plan->names), free(plan->heads), free(plan);
}

static void *duplicate(const void *bytes, size_t size) {
  void *copied = malloc(size + PAD);
  if (copied && size) memcpy(copied, bytes, size);
  return copied;
}

/* Returns the plan for these columns; NULL if there is no memory. `slots` has a slot for each column,
   `names` and `heads` have one text for each slot, which ends at `name_ends` and `head_ends`. */
API Plan *plan_make(uint32_t column_count, const uint32_t *slots, uint32_t slot_count,
                    const uint8_t *names, const uint32_t *name_ends, const uint8_t *heads,
                    const uint32_t *head_ends, int guard, int joined) {
  Plan *plan = calloc(1, sizeof(Plan));
  if (!plan) return NULL;
  plan->column_count = column_count, plan->slot_count = slot_count;
  plan->guard = guard, plan->joined = joined;
  plan->slots = duplicate(slots, column_count * sizeof *slots);
  plan->name_ends = duplicate(name_ends, slot_count * sizeof *name_ends);
  plan->head_ends = duplicate(head_ends, slot_count * sizeof *head_ends);
  plan->names = duplicate(names, slot_count ? name_ends[slot_count - 1] : 0);
  plan->heads = duplicate(heads, slot_count ? head_ends[slot_count - 1] : 0);
  uint32_t *repeats = calloc(slot_count + 1, sizeof *repeats);
  int is_complete = plan->slots && plan->name_ends && plan->head_ends && plan->names &&
                    plan->heads && repeats;
  for (uint32_t c = 0; is_complete && c < column_count; c++)
    if (++repeats[slots[c]] > plan->max_repeats) plan->max_repeats = repeats[slots[c]];
  free(repeats);
  if (is_complete) return plan;
  plan_free(plan);
  return NULL;
}

/* Memory for one call. */
typedef struct {
  int32_t *slot_of; /* by name of the page; -1 for a name that is no column */
  uint32_t *found;  /* by slot: the field of the current row, or NEVER */
  uint32_t *noted;  /* by name: the last row, plus 1, in which it was counted */
} Columns;

static void columns_free(Columns *columns) {
  free(columns->slot_of), free(columns->found), free(columns->noted);
}

/* Returns 0 if there is no memory; `columns` must be freed in any case. */
static int columns_make(Columns *columns, const Page *page, const Plan *plan) {
  columns->slot_of = malloc((page->name_count + 1) * sizeof(int32_t));
  columns->found = malloc((plan->slot_count + 1) * sizeof(uint32_t));
  columns->noted = calloc(page->name_count + 1, sizeof(uint32_t));
  if (!columns->slot_of || !columns->found || !columns->noted) return 0;
  memset(columns->slot_of, 0xFF, (page->name_count + 1) * sizeof(int32_t));
  for (uint32_t slot = 0; slot < plan->slot_count; slot++) {
    uint32_t begin = slot ? plan->name_ends[slot - 1] : 0, size = plan->name_ends[slot] - begin;
    const uint8_t *name = plan->names + begin;
    uint32_t number = page->table[place_of(page, name, size, hash_of(name, size))];
    if (number != NEVER) columns->slot_of[number] = (int32_t)slot;
  }
  return 1;
}

/* Finds the field of each column in a row, the last of several with one name. Notes the columns that
   the row has in `present`, and counts the row in `extras` for each other name. */
static inline void columns_find(Columns *columns, const Page *page, const Plan *plan, uint32_t index,
                                uint32_t *extras, uint8_t *present) {
  const Row *row = &page->rows[index];
  const Field *fields = page->fields + row->first;
  memset(columns->found, 0xFF, plan->slot_count * sizeof(uint32_t));
  for (uint32_t i = 0; i < row->count; i++) {
    uint32_t name = fields[i].name;
    int32_t slot = columns->slot_of[name];
    if (slot >= 0) {
      columns->found[slot] = i;
      present[slot] = 1;
    } else if (columns->noted[name] != index + 1) {
      columns->noted[name] = index + 1;
      extras[name]++;
    }
  }
}

#endif
