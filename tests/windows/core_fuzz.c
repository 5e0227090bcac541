/*
 * Hostile requests and hostile answers for the driver's core: LLVMFuzzerTestOneInput for libFuzzer, and with
 * -DSTANDALONE a main that feeds it `core_fuzz SEED COUNT` inputs of its own making. AddressSanitizer watches the
 * memory; what else must hold is checked here and aborts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "odx_core.h"

#define MUST(what) do { if (!(what)) { fprintf(stderr, "violated: %s\n", #what); abort(); } } while (0)

typedef struct input { const uint8_t *at; size_t left; } input;
typedef struct world { input *in; odx_disk *disk; uint64_t now; uint32_t identifiers, packets; } world;

static uint8_t take(input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

static uint32_t take32(input *in)
{
    uint32_t value = 0;
    for (int index = 0; index < 4; index++)
        value = value << 8 | take(in);
    return value;
}

/* A number near something interesting, or any. */
static uint32_t pick(input *in, uint32_t usual)
{
    static const uint32_t edges[] = {0, 1, 15, 16, 27, 28, 48, 528, 560, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF};
    uint8_t how = take(in);
    if (how < 176)
        return usual;
    if (how < 208)
        return usual + (uint32_t)(int8_t)take(in);
    return how < 248 ? edges[how % (sizeof edges / sizeof edges[0])] : take32(in);
}

/* Whatever the request said, no command may leave the disk or its own list. */
static void look_at(const world *w, const odx_packet *packet)
{
    if (packet->cdb[0] != OP_COPY_OUT)
        return;
    uint32_t first = packet->cdb[1] == ACTION_POPULATE ? 16 : 536, length = packet->data_out_length;
    MUST(length >= first + RANGE_SIZE && length <= ODX_LIST_ROOM && length == get_be32(packet->cdb + 10));
    MUST(get_be16(packet->data_out) == length - 2 && get_be16(packet->data_out + first - 2) == length - first);
    for (uint32_t at = first; at < length; at += RANGE_SIZE) {
        uint64_t start = get_be64(packet->data_out + at), blocks = get_be32(packet->data_out + at + 8);
        MUST(blocks > 0 && start <= w->disk->bytes / 512 && (start + blocks) * 512 <= w->disk->bytes);
    }
}

static odx_status execute(void *context, odx_packet *packet)
{
    world *w = context;
    look_at(w, packet);
    MUST(++w->packets < 100000);
    uint8_t how = take(w->in);
    w->now += how < 250 ? 0 : 5000;
    if (how < 8 || w->in->left == 0)
        return ODX_IO_DEVICE_ERROR;
    packet->scsi_status = how < 160 ? SCSI_GOOD : how < 240 ? SCSI_CHECK_CONDITION : take(w->in);
    packet->sense_length = take(w->in) % (SENSE_ROOM + 1);
    for (uint32_t index = 0; index < packet->sense_length; index++)
        packet->sense[index] = take(w->in);
    packet->data_in_length = packet->data_in_room == 0 ? 0 : pick(w->in, packet->data_in_room) % (packet->data_in_room + 1);
    for (uint32_t index = 0; index < packet->data_in_length; index++)
        packet->data_in[index] = index < 64 ? take(w->in) : 0;
    if (packet->cdb[0] == OP_COPY_IN && packet->data_in_length > 600 && take(w->in) < 128) { /* one that could be true */
        memset(packet->data_in, 0, 36);
        packet->data_in[5] = take(w->in) & 3;
        put_be64(packet->data_in + 16, take(w->in));
        put_be32(packet->data_in + 32, 514);
    }
    if (packet->cdb[0] == OP_INQUIRY && packet->data_in_length > 50 && take(w->in) < 192) {
        static const uint8_t list[] = {0, 0, 0, 3, 0, 0x8F, 0xB0}, limits[] = {0, 0x8F, 0, 36, 0, 0, 0, 0x20};
        memcpy(packet->data_in, packet->cdb[2] == 0 ? list : limits, 7);
        packet->data_in[7] = 0x20;
    }
    if (packet->cdb[0] == OP_SERVICE_ACTION_IN_16 && packet->data_in_length > 11 && take(w->in) < 192)
        put_be32(packet->data_in + 8, 1u << take(w->in) % 32);
    return ODX_SUCCESS;
}

static uint64_t milliseconds(void *context) { return ((world *)context)->now; }
static void wait(void *context, uint32_t length) { ((world *)context)->now += length; }
static uint32_t list_identifier(void *context) { return ((world *)context)->identifiers++; }

static uint64_t bytes_wanted(const odx_dsm *dsm)
{
    uint32_t offset = get_le32(dsm->buffer + DSM_RANGES_OFFSET), length = get_le32(dsm->buffer + DSM_RANGES_LENGTH);
    uint64_t bytes = 0;
    for (uint32_t index = 0; index < length / RANGE_SIZE; index++)
        bytes += get_le64(dsm->buffer + offset + index * RANGE_SIZE + 8);
    return bytes;
}

static void fuzz_dsm(world *w)
{
    input *in = w->in;
    bool read = take(in) & 1;
    uint32_t ranges = pick(in, 1 + take(in) % 70) % 200, at = read ? 48 : 560, usual = at + ranges * RANGE_SIZE;
    odx_dsm dsm = {.caller_allowed = true, .level_allowed = true};
    dsm.in_length = pick(in, usual) % 8192;
    dsm.out_length = pick(in, read ? READ_OUTPUT_SIZE : WRITE_OUTPUT_SIZE) % 8192;
    uint32_t whole = dsm.in_length > dsm.out_length ? dsm.in_length : dsm.out_length;
    uint8_t *made = calloc(1, 8192 + usual);
    uint32_t fields[] = {28, read ? DSM_OFFLOAD_READ : DSM_OFFLOAD_WRITE, 0, read ? 28 : 32,
                         read ? READ_PARAMETERS_SIZE : WRITE_PARAMETERS_SIZE, at, ranges * RANGE_SIZE};
    for (uint32_t index = 0; index < 7; index++)
        put_le32(made + 4 * index, index == 1 ? fields[1] : pick(in, fields[index]));
    put_le32(made + (read ? 32 : 40), pick(in, 0)); /* time to live, token offset */
    for (uint32_t index = 0; index < ranges; index++) {
        put_le64(made + at + index * RANGE_SIZE, pick(in, take(in)) * 512ull);
        put_le64(made + at + index * RANGE_SIZE + 8, pick(in, 1u + take(in)) * 512ull + (take(in) > 250));
    }
    dsm.buffer = whole == 0 ? NULL : malloc(whole); /* of just that length: ASan sees a byte too many */
    if (whole > 0)
        memcpy(dsm.buffer, made, whole);
    free(made);
    if (odx_is_offload(dsm.buffer, dsm.in_length) && odx_dsm_check(w->disk, &dsm) == ODX_SUCCESS) {
        dsm.scratch_length = ODX_SCRATCH_LEAST + take32(in) % 8192;
        dsm.scratch = malloc(dsm.scratch_length);
        uint64_t wanted = bytes_wanted(&dsm);
        odx_status status = odx_dsm_run(w->disk, &dsm);
        MUST(dsm.information <= dsm.out_length);
        MUST(status != ODX_SUCCESS || get_le64(dsm.buffer + 8) > 0);
        MUST(get_le64(dsm.buffer + 8) <= wanted);
        free(dsm.scratch);
    }
    free(dsm.buffer);
}

static void fuzz_property(world *w)
{
    uint32_t in_length = take(w->in) % 16, out_length = take(w->in) % 64, information;
    uint32_t whole = in_length > out_length ? in_length : out_length;
    uint8_t *buffer = whole == 0 ? NULL : calloc(1, whole);
    for (uint32_t index = 0; index < in_length; index++)
        buffer[index] = take(w->in) & 3;
    odx_property(w->disk, buffer, in_length, out_length, &information);
    MUST(information <= out_length);
    free(buffer);
}

static void fuzz_discovery(world *w)
{
    uint8_t *scratch = malloc(ODX_VPD_ROOM);
    odx_discover(w->disk, scratch);
    MUST(w->disk->block_size == 0 || (w->disk->block_size & (w->disk->block_size - 1)) == 0);
    free(scratch);
}

static void fuzz_mailbox(world *w)
{
    input *in = w->in;
    size_t length = pick(in, 4096) % 8192;
    uint8_t *head = malloc(length);
    for (size_t index = 0; index < length; index++)
        head[index] = index < 128 ? take(in) : 0;
    if (length >= 128 && take(in) < 250) { /* only a good head gets past the checksum */
        static const uint32_t usual[] = {1, 16, 16384, 16384, 8192, 8096, 8096, 512};
        memcpy(head, "QEMU-ODX-MAILBOX", 16);
        for (uint32_t index = 0; index < 8; index++)
            put_le32(head + 16 + 4 * index, pick(in, usual[index]));
        put_le64(head + 48, MAILBOX_PLACE);
        put_le64(head + 56, pick(in, 278528));
        put_le32(head + 124, odx_crc32(head, 124, 0));
    }
    odx_mailbox mailbox;
    if (odx_mailbox_head(head, length, &mailbox)) {
        uint8_t *data = calloc(1, 16384), *page = malloc(MAILBOX_PAGE);
        odx_packet packet = {.data_out = data, .data_out_length = pick(in, take(in)) % 16384, .data_in = data};
        packet.data_in_room = pick(in, take(in)) % 16384;
        odx_letter letter = {take(in), take(in)};
        uint32_t room = odx_mailbox_request(&mailbox, page, letter, &packet), result;
        MUST(room <= MAILBOX_PAGE && room <= mailbox.response_offset && room % mailbox.block_size == 0);
        if (room > 0) {
            room = odx_mailbox_response_room(&mailbox, &packet);
            MUST(room <= MAILBOX_PAGE && room <= mailbox.slot_size - mailbox.response_offset);
            uint8_t *answer = calloc(1, room);
            memcpy(answer, "ODXA\1\0\140", 7);
            put_le64(answer + 8, letter.sequence), put_le64(answer + 16, letter.user);
            put_le32(answer + 32, pick(in, 18)), put_le32(answer + 36, pick(in, packet.data_in_room));
            uint32_t covered = get_le32(answer + 36) <= room - 96 ? 96 + get_le32(answer + 36) : room;
            put_le32(answer + 44, odx_crc32(answer, covered, 0)); /* its own field was zero */
            odx_mailbox_response(answer, room, letter, &packet, &result);
            MUST(packet.data_in_length <= packet.data_in_room && packet.sense_length <= SENSE_ROOM);
            free(answer);
        }
        free(data), free(page);
    }
    free(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    odx_disk disk = {.supported = true, .block_size = 512, .bytes = 1 << 20, .max_lifetime = 600};
    odx_disk unknown = {0};
    world w = {.in = &in, .disk = &disk};
    disk.port = (odx_port){&w, execute, milliseconds, wait, list_identifier, take(&in) < 200 ? 8096 : 1024};
    disk.max_ranges = (uint16_t)pick(&in, 64);
    disk.max_blocks = pick(&in, 0);
    disk.optimal_blocks = pick(&in, 16);
    switch (take(&in) % 8) {
    case 0: fuzz_property(&w); break;
    case 1: unknown.port = disk.port, disk = unknown, fuzz_discovery(&w); break;
    case 2: case 3: fuzz_mailbox(&w); break;
    default: fuzz_dsm(&w);
    }
    return 0;
}

#ifdef STANDALONE
static uint64_t state;

static uint64_t random64(void) /* xorshift64*, Vigna 2016 */
{
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 2685821657736338717ull;
}

int main(int count, char **words)
{
    if (count != 3)
        return 2;
    uint64_t seed = strtoull(words[1], NULL, 0), rounds = strtoull(words[2], NULL, 0);
    for (uint64_t round = 0; round < rounds; round++) {
        state = (seed << 32 | round) * 0x9E3779B97F4A7C15ull + 1;
        size_t size = 64 + random64() % 4096;
        uint8_t *data = malloc(size);
        for (size_t index = 0; index < size; index++)
            data[index] = (uint8_t)(random64() >> 56);
        LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
    printf("%llu inputs\n", (unsigned long long)rounds);
    return 0;
}
#endif
