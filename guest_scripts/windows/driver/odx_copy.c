/*
 * Offload read, offload write, and the copy-offload property, after odx_dsm_check found nothing wrong.
 *
 * Limits, order of packets, retries, what counts as done and the output are classpnp's. One difference: a disk that
 * claims to have written more blocks than it was asked to is not believed.
 */
#include <string.h>

#include "odx_core.h"

#define MEBIBYTE (1ull << 20)
#define WRITE_DEFAULT (64 * MEBIBYTE)
#define WRITE_MOST (256 * MEBIBYTE)
#define WRITE_MILLISECONDS 4000u /* then what is done is reported, and the caller comes back with the rest */
#define READ_RETRIES 1u
#define WRITE_RETRIES 2u
#define LEAST_WRITE_ANSWER 287u

static odx_cursor cursor_of(const odx_disk *disk, const odx_dsm *dsm)
{
    return (odx_cursor){
        .ranges = dsm->buffer + get_le32(dsm->buffer + DSM_RANGES_OFFSET),
        .count = get_le32(dsm->buffer + DSM_RANGES_LENGTH) / RANGE_SIZE,
        .block_size = disk->block_size,
    };
}

static uint32_t least(uint32_t one, uint32_t other) { return one < other ? one : other; }

static uint32_t most_ranges(const odx_disk *disk)
{
    return disk->max_ranges == 0 ? ODX_MOST_RANGES : least(disk->max_ranges, ODX_MOST_RANGES);
}

static uint64_t most_read_blocks(const odx_disk *disk, uint32_t lifetime)
{
    uint64_t most = disk->max_blocks == 0 ? UINT64_MAX : disk->max_blocks;
    if (lifetime == 0 && disk->optimal_blocks > 0 && disk->optimal_blocks < most)
        most = disk->optimal_blocks;
    return most;
}

static uint64_t most_write_blocks(const odx_disk *disk)
{
    uint64_t most = WRITE_MOST / disk->block_size;
    if (disk->optimal_blocks == 0)
        most = WRITE_DEFAULT / disk->block_size;
    else if (disk->optimal_blocks < most)
        most = disk->optimal_blocks;
    return disk->max_blocks != 0 && disk->max_blocks < most ? disk->max_blocks : most;
}

/* RECEIVE ROD TOKEN INFORMATION into the scratch behind the parameter list; what did not come counts as zeros. */
static odx_verdict receive(odx_disk *disk, odx_dsm *dsm, uint32_t identifier, uint32_t length, uint32_t retries,
                           odx_packet *packet)
{
    length = least(length, least(disk->port.max_transfer, dsm->scratch_length - ODX_LIST_ROOM));
    *packet = (odx_packet){.data_in = dsm->scratch + ODX_LIST_ROOM, .data_in_room = length};
    odx_receive_cdb(packet->cdb, identifier, length);
    odx_verdict verdict = odx_execute(disk, packet, retries);
    if (verdict.status == ODX_DATA_OVERRUN) /* taken for less data than asked for, which is no error here */
        verdict.status = ODX_SUCCESS;
    memset(packet->data_in + packet->data_in_length, 0, length - packet->data_in_length);
    packet->data_in_length = length;
    return verdict;
}

static void put_read_output(odx_dsm *dsm, uint32_t flags, uint64_t bytes, const uint8_t *token)
{
    memset(dsm->buffer, 0, READ_OUTPUT_TOKEN);
    put_le32(dsm->buffer, flags);
    put_le64(dsm->buffer + READ_OUTPUT_LENGTH, bytes);
    if (token != NULL) {
        put_le32(dsm->buffer + READ_OUTPUT_TOKEN_LENGTH, TOKEN_SIZE);
        memcpy(dsm->buffer + READ_OUTPUT_TOKEN, token, TOKEN_SIZE);
        memset(dsm->buffer + READ_OUTPUT_TOKEN + TOKEN_SIZE, 0, READ_OUTPUT_SIZE - READ_OUTPUT_TOKEN - TOKEN_SIZE);
    }
    dsm->information = READ_OUTPUT_SIZE;
}

static odx_status fail_read(odx_dsm *dsm, odx_status status)
{
    put_read_output(dsm, 0, 0, NULL);
    return status;
}

static odx_status finish_read(odx_disk *disk, odx_dsm *dsm, uint32_t identifier, uint64_t asked, uint64_t wanted)
{
    odx_packet packet;
    odx_verdict verdict = receive(disk, dsm, identifier, ODX_POPULATE_ANSWER, READ_RETRIES, &packet);
    if (verdict.status != ODX_SUCCESS)
        return fail_read(dsm, verdict.status);
    odx_answer answer = odx_parse_answer(packet.data_in, packet.data_in_length, asked);
    if (!answer.complete)
        return fail_read(dsm, ODX_UNSUCCESSFUL);
    if (answer.token == NULL || answer.count == 0) {
        odx_status status = odx_judge(&answer.outcome).status;
        return fail_read(dsm, status == ODX_SUCCESS ? ODX_UNSUCCESSFUL : status);
    }
    uint32_t flags = answer.count < wanted ? READ_TRUNCATED : 0;
    put_read_output(dsm, flags, answer.count * disk->block_size, answer.token);
    return ODX_SUCCESS;
}

static odx_status run_read(odx_disk *disk, odx_dsm *dsm)
{
    odx_cursor cursor = cursor_of(disk, dsm);
    const uint8_t *parameters = dsm->buffer + get_le32(dsm->buffer + DSM_PARAMETER_OFFSET);
    uint32_t lifetime = get_le32(parameters + READ_TIME_TO_LIVE);
    uint64_t wanted = odx_cursor_blocks(&cursor), asked;
    uint32_t ranges =
        odx_describe(cursor, dsm->scratch + 16, most_ranges(disk), most_read_blocks(disk, lifetime), &asked);
    uint32_t length = odx_populate_list(dsm->scratch, lifetime, ranges);
    uint32_t identifier = disk->port.list_identifier(disk->port.context);
    odx_packet packet = {.data_out = dsm->scratch, .data_out_length = length};
    odx_copy_out_cdb(packet.cdb, ACTION_POPULATE, identifier, length);
    odx_verdict verdict = odx_execute(disk, &packet, READ_RETRIES);
    if (verdict.status != ODX_SUCCESS)
        return fail_read(dsm, verdict.status);
    return finish_read(disk, dsm, identifier, asked, wanted);
}

typedef struct written { /* what came of one WRITE USING TOKEN */
    uint64_t blocks;
    odx_status status;
    bool token_invalid;
} written;

/* Ask a disk that did not simply succeed how many of `asked` blocks it has written, and why not all. */
static written ask_what_was_written(odx_disk *disk, odx_dsm *dsm, uint32_t identifier, uint64_t asked)
{
    uint32_t length = disk->max_ranges == 0 ? 65535u : least(65535u, 536u + 16u * disk->max_ranges);
    odx_packet packet;
    odx_verdict verdict = receive(disk, dsm, identifier, length < LEAST_WRITE_ANSWER ? LEAST_WRITE_ANSWER : length,
                                  WRITE_RETRIES, &packet);
    if (verdict.status != ODX_SUCCESS)
        return (written){.status = verdict.status};
    odx_answer answer = odx_parse_answer(packet.data_in, packet.data_in_length, asked);
    odx_status status = odx_judge(&answer.outcome).status;
    if (!answer.complete || (answer.count == 0 && status == ODX_SUCCESS))
        return (written){.status = ODX_UNSUCCESSFUL};
    return (written){answer.count, status, status == ODX_INVALID_TOKEN};
}

static written write_once(odx_disk *disk, odx_dsm *dsm, const odx_cursor *cursor, uint64_t offset)
{
    const uint8_t *parameters = dsm->buffer + get_le32(dsm->buffer + DSM_PARAMETER_OFFSET);
    uint64_t asked;
    uint32_t ranges =
        odx_describe(*cursor, dsm->scratch + 536, most_ranges(disk), most_write_blocks(disk), &asked);
    uint32_t length = odx_write_list(dsm->scratch, offset, parameters + WRITE_TOKEN, ranges);
    uint32_t identifier = disk->port.list_identifier(disk->port.context);
    odx_packet packet = {.data_out = dsm->scratch, .data_out_length = length};
    odx_copy_out_cdb(packet.cdb, ACTION_WRITE_USING, identifier, length);
    odx_verdict verdict = odx_execute(disk, &packet, WRITE_RETRIES);
    if (packet.scsi_status == SCSI_GOOD)
        return (written){asked, ODX_SUCCESS, false};
    if (verdict.status == ODX_SUCCESS && verdict.information != 0)
        return (written){verdict.information < asked ? verdict.information : asked, ODX_SUCCESS, false};
    if (verdict.status == ODX_INVALID_TOKEN || verdict.status == ODX_INVALID_PARAMETER)
        return (written){0, verdict.status, verdict.status == ODX_INVALID_TOKEN};
    return ask_what_was_written(disk, dsm, identifier, asked);
}

static odx_status finish_write(odx_dsm *dsm, uint64_t bytes, bool truncated, const written *last)
{
    uint32_t flags = truncated ? WRITE_TRUNCATED : 0;
    if (last->token_invalid)
        flags |= WRITE_TOKEN_INVALID;
    memset(dsm->buffer, 0, WRITE_OUTPUT_SIZE);
    put_le32(dsm->buffer, flags);
    put_le64(dsm->buffer + WRITE_OUTPUT_LENGTH, bytes);
    dsm->information = WRITE_OUTPUT_SIZE;
    return bytes > 0 ? ODX_SUCCESS : last->status;
}

static odx_status run_write(odx_disk *disk, odx_dsm *dsm)
{
    odx_cursor cursor = cursor_of(disk, dsm);
    const uint8_t *parameters = dsm->buffer + get_le32(dsm->buffer + DSM_PARAMETER_OFFSET);
    uint64_t offset = get_le64(parameters + WRITE_TOKEN_OFFSET) / disk->block_size; /* a remainder is dropped */
    uint64_t wanted = odx_cursor_blocks(&cursor), done = 0;
    uint64_t began = disk->port.milliseconds(disk->port.context);
    written last;
    do {
        last = write_once(disk, dsm, &cursor, offset + done);
        done += last.blocks;
        odx_cursor_advance(&cursor, last.blocks);
    } while (last.blocks > 0 && done < wanted &&
             disk->port.milliseconds(disk->port.context) - began < WRITE_MILLISECONDS);
    return finish_write(dsm, done * cursor.block_size, done > 0 && done < wanted, &last);
}

odx_status odx_dsm_run(odx_disk *disk, odx_dsm *dsm)
{
    bool read = get_le32(dsm->buffer + DSM_ACTION) == DSM_OFFLOAD_READ;
    return read ? run_read(disk, dsm) : run_write(disk, dsm);
}

static void put_descriptor(const odx_disk *disk, uint8_t *out)
{
    memset(out, 0, COPY_OFFLOAD_SIZE);
    put_le32(out, 1);
    put_le32(out + 4, COPY_OFFLOAD_SIZE);
    put_le32(out + 8, disk->max_lifetime);
    put_le32(out + 12, disk->default_lifetime);
    put_le64(out + 16, disk->max_blocks); /* in blocks, as classpnp gives it; the documentation says bytes */
    put_le64(out + 24, disk->optimal_blocks);
    put_le32(out + 32, disk->max_ranges);
    put_le32(out + 36, disk->max_descriptor);
    put_le32(out + 40, disk->optimal_descriptor);
    put_le16(out + 44, disk->granularity);
}

/* IOCTL_STORAGE_QUERY_PROPERTY of StorageDeviceCopyOffloadProperty; `buffer` holds the query and takes the answer. */
odx_status odx_property(const odx_disk *disk, uint8_t *buffer, uint32_t in_length, uint32_t out_length,
                        uint32_t *information)
{
    *information = 0;
    if (buffer == NULL || in_length < PROPERTY_QUERY_SIZE)
        return ODX_INFO_LENGTH_MISMATCH;
    uint32_t type = get_le32(buffer + 4);
    if (type == PROPERTY_EXISTS)
        return ODX_SUCCESS;
    if (type != PROPERTY_STANDARD)
        return ODX_NOT_SUPPORTED;
    if (out_length < PROPERTY_HEADER)
        return ODX_BUFFER_TOO_SMALL;
    if (out_length < COPY_OFFLOAD_SIZE) { /* the header only; Version is 48 too then */
        put_le32(buffer, COPY_OFFLOAD_SIZE);
        put_le32(buffer + 4, COPY_OFFLOAD_SIZE);
        *information = PROPERTY_HEADER;
        return ODX_SUCCESS;
    }
    if (!disk->supported)
        return ODX_DEVICE_FEATURE_NOT_SUPPORTED;
    put_descriptor(disk, buffer);
    *information = COPY_OFFLOAD_SIZE;
    return ODX_SUCCESS;
}
