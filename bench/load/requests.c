#include "requests.h"

#include <string.h>

enum { BLK_HEADER = 16, SCSI_COMMAND = 51, SCSI_RESPONSE = 108, SECTOR = 512 };

int descriptors_of(const struct work *work)
{
    return 2 + (int)((work->block_size + work->segment - 1) / work->segment);
}

static struct desc *table_of(struct slot *slot, struct front_end *front, struct queue *queue)
{
    return front->indirect ? slot->table : queue->desc;
}

void slot_make(struct front_end *front, struct queue *queue, const struct work *work, struct slot *slot, int number)
{
    int parts = descriptors_of(work);
    slot->out = ram_take(front, 64, 64);
    slot->in = ram_take(front, 128, 64);
    slot->data = ram_take(front, work->block_size, 4096);
    slot->head = (uint16_t)(front->indirect ? number : number * parts);
    if (front->indirect) {
        slot->table = ram_take(front, 16u * (size_t)parts, 16);
        queue->desc[slot->head] = (struct desc){gpa_of(front, slot->table), 16u * (uint32_t)parts, DESC_INDIRECT, 0};
    }
}

static void prepare_blk(struct slot *slot, const struct work *work)
{
    uint32_t head[2] = {slot->write, 0};
    uint64_t sector = slot->block * work->block_size / SECTOR;
    memcpy(slot->out, head, 8);
    memcpy(slot->out + 8, &sector, 8);
    slot->in[0] = 0xff;
}

static void prepare_scsi(struct slot *slot, const struct work *work)
{
    uint32_t lba = (uint32_t)(slot->block * work->block_size / SECTOR), count = work->block_size / SECTOR;
    memset(slot->out, 0, SCSI_COMMAND);
    memset(slot->in, 0xff, SCSI_RESPONSE);
    slot->out[0] = 1; /* LUN 0 of target 0, 5.6.6.1 */
    slot->out[2] = 0x40;
    memcpy(slot->out + 8, &slot, sizeof slot); /* tag: unique among those in flight */
    uint8_t *cdb = slot->out + 19;
    cdb[0] = slot->write ? 0x2a : 0x28; /* WRITE(10), READ(10) */
    for (int n = 0; n < 4; n++)
        cdb[2 + n] = (uint8_t)(lba >> (24 - 8 * n));
    cdb[7] = (uint8_t)(count >> 8);
    cdb[8] = (uint8_t)count;
}

void slot_prepare(struct slot *slot, const struct work *work, uint64_t block, bool write)
{
    slot->block = block;
    slot->write = write;
    (work->scsi ? prepare_scsi : prepare_blk)(slot, work);
}

/* Data go before the status of virtio-blk, after the response of virtio-scsi, and after what is readable. */
void slot_lay_out(struct slot *slot, struct front_end *front, struct queue *queue, const struct work *work)
{
    struct desc *table = table_of(slot, front, queue);
    int parts = descriptors_of(work), at = front->indirect ? 0 : slot->head, first = at;
    bool response_first = work->scsi && !slot->write;
    struct desc response = {gpa_of(front, slot->in), work->scsi ? SCSI_RESPONSE : 1, DESC_WRITE, 0};
    table[at++] = (struct desc){gpa_of(front, slot->out), work->scsi ? SCSI_COMMAND : BLK_HEADER, 0, 0};
    if (response_first)
        table[at++] = response;
    for (uint32_t done = 0; done < work->block_size; done += work->segment) {
        uint32_t left = work->block_size - done;
        table[at++] = (struct desc){gpa_of(front, slot->data + done), left < work->segment ? left : work->segment,
                                    slot->write ? 0 : DESC_WRITE, 0};
    }
    if (!response_first)
        table[at++] = response;
    for (int n = first; n < first + parts - 1; n++) {
        table[n].flags |= DESC_NEXT;
        table[n].next = (uint16_t)(n + 1);
    }
}

const char *slot_result(const struct slot *slot, const struct work *work, uint32_t written, bool *again)
{
    uint32_t expected = (work->scsi ? SCSI_RESPONSE : 1) + (slot->write ? 0 : work->block_size);
    *again = work->scsi && slot->in[10] == 2 && (slot->in[12 + 2] & 15) == 6; /* unit attention */
    if (*again)
        return NULL;
    if (work->scsi ? slot->in[10] || slot->in[11] : slot->in[0])
        return "the request failed";
    return written == expected ? NULL : "the used length is not that of the request";
}

/* Each sector is told apart by its place, its generation and its content (splitmix64). */
static uint64_t mix(uint64_t value)
{
    value += 0x9e3779b97f4a7c15ull;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

void pattern_fill(uint8_t *data, uint32_t length, uint64_t block, uint32_t generation)
{
    uint64_t seed = mix(block << 20 ^ generation);
    for (uint32_t at = 0; at < length; at += 8) {
        uint64_t word = seed + (uint64_t)at * 0x9e3779b97f4a7c15ull;
        memcpy(data + at, &word, 8);
    }
}

bool pattern_holds(const uint8_t *data, uint32_t length, uint64_t block, uint32_t generation)
{
    uint64_t seed = mix(block << 20 ^ generation), wrong = 0;
    for (uint32_t at = 0; at < length; at += 8) {
        uint64_t word;
        memcpy(&word, data + at, 8);
        wrong |= word ^ (seed + (uint64_t)at * 0x9e3779b97f4a7c15ull);
    }
    return !wrong;
}
