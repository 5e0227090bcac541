/*
 * CDBs and parameter lists of a token copy, and what its answers say (SPC-4 6.24, SBC-4 5.12 and 5.49).
 *
 * IMMED, RTV and ROD TYPE are always 0 and no range is sorted or merged: so does classpnp.
 */
#include <string.h>

#include "odx_core.h"

#define LONGEST_DESCRIPTOR 0xFFFFFFFFull /* blocks */

static uint64_t left_in_range(const odx_cursor *cursor)
{
    return get_le64(cursor->ranges + cursor->index * RANGE_SIZE + 8) / cursor->block_size - cursor->used;
}

/* Blocks from the cursor to the end of the last range. */
uint64_t odx_cursor_blocks(const odx_cursor *cursor)
{
    uint64_t blocks = 0;
    for (odx_cursor at = *cursor; at.index < at.count; at.index++, at.used = 0)
        blocks += left_in_range(&at);
    return blocks;
}

/* Go on by so many blocks, at most to the end. */
void odx_cursor_advance(odx_cursor *cursor, uint64_t blocks)
{
    while (cursor->index < cursor->count && blocks > 0) {
        uint64_t left = left_in_range(cursor);
        if (blocks < left) {
            cursor->used += blocks;
            return;
        }
        blocks -= left;
        cursor->index++;
        cursor->used = 0;
    }
}

/* Write range descriptors to `at`, within both limits; their number, and in *blocks what they stand for. */
uint32_t odx_describe(odx_cursor cursor, uint8_t *at, uint32_t most_ranges, uint64_t most_blocks, uint64_t *blocks)
{
    uint32_t made = 0;
    *blocks = 0;
    while (cursor.index < cursor.count && made < most_ranges && *blocks < most_blocks) {
        uint64_t length = left_in_range(&cursor);
        if (length > LONGEST_DESCRIPTOR)
            length = LONGEST_DESCRIPTOR;
        if (length > most_blocks - *blocks)
            length = most_blocks - *blocks;
        uint8_t *descriptor = at + made++ * RANGE_SIZE;
        memset(descriptor, 0, RANGE_SIZE);
        uint64_t start = get_le64(cursor.ranges + cursor.index * RANGE_SIZE) / cursor.block_size;
        put_be64(descriptor, start + cursor.used);
        put_be32(descriptor + 8, (uint32_t)length);
        *blocks += length;
        odx_cursor_advance(&cursor, length);
    }
    return made;
}

/* The head of POPULATE TOKEN's list, before `ranges` descriptors at byte 16; the length of the whole. */
uint32_t odx_populate_list(uint8_t *list, uint32_t lifetime, uint32_t ranges)
{
    uint32_t length = 16 + ranges * RANGE_SIZE;
    memset(list, 0, 16);
    put_be16(list, (uint16_t)(length - 2));
    put_be32(list + 4, lifetime);
    put_be16(list + 14, (uint16_t)(ranges * RANGE_SIZE));
    return length;
}

/* The head of WRITE USING TOKEN's list, before `ranges` descriptors at byte 536; the length of the whole. */
uint32_t odx_write_list(uint8_t *list, uint64_t offset, const uint8_t *token, uint32_t ranges)
{
    uint32_t length = 536 + ranges * RANGE_SIZE;
    memset(list, 0, 536);
    put_be16(list, (uint16_t)(length - 2));
    put_be64(list + 8, offset);
    memcpy(list + 16, token, TOKEN_SIZE);
    put_be16(list + 534, (uint16_t)(ranges * RANGE_SIZE));
    return length;
}

void odx_copy_out_cdb(uint8_t *cdb, uint8_t action, uint32_t identifier, uint32_t length)
{
    memset(cdb, 0, CDB_BYTES);
    cdb[0] = OP_COPY_OUT;
    cdb[1] = action;
    put_be32(cdb + 6, identifier);
    put_be32(cdb + 10, length);
}

void odx_receive_cdb(uint8_t *cdb, uint32_t identifier, uint32_t length)
{
    memset(cdb, 0, CDB_BYTES);
    cdb[0] = OP_COPY_IN;
    cdb[1] = ACTION_RECEIVE_ROD_TOKEN;
    put_be32(cdb + 2, identifier);
    put_be32(cdb + 10, length);
}

/* COPY OPERATION STATUS, as classpnp knows it: 03h is residual data, any other value means "not complete". */
enum { DONE = 0x01, DONE_WITH_ERROR = 0x02, DONE_IN_PART = 0x03, TERMINATED = 0x60 };

static void parse_outcome(const uint8_t *data, uint32_t length, uint8_t state, odx_packet *outcome)
{
    uint32_t sense = data[14];
    if (sense == 0 || state == DONE || sense > length - 32)
        return;
    outcome->scsi_status = data[12];
    outcome->sense_length = sense < SENSE_ROOM ? sense : SENSE_ROOM;
    memcpy(outcome->sense, data + 32, outcome->sense_length);
}

/* `length` bytes of RECEIVE ROD TOKEN INFORMATION's answer to an operation on `requested` blocks. */
odx_answer odx_parse_answer(const uint8_t *data, uint32_t length, uint64_t requested)
{
    odx_answer answer = {0};
    if (length < 32)
        return answer;
    uint8_t state = data[5] & 0x7F;
    answer.complete = state == DONE || state == DONE_WITH_ERROR || state == DONE_IN_PART || state == TERMINATED;
    if (!answer.complete)
        return answer;
    parse_outcome(data, length, state, &answer.outcome);
    answer.count = get_be64(data + 16);
    if (answer.count > requested || state == DONE_WITH_ERROR || state == TERMINATED)
        answer.count = 0;
    uint32_t descriptors = 32u + data[13];
    if (length >= descriptors + 6 + TOKEN_SIZE && get_be32(data + descriptors) == TOKEN_SIZE + 2)
        answer.token = data + descriptors + 6;
    return answer;
}
