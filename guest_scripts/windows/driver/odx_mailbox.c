/*
 * Pages of the mailbox protocol, version 1: a SCSI packet as the content of a disk write, its answer as the content
 * of a disk read. docs/mailbox.md is the whole protocol; its offsets are the numbers here.
 */
#include <string.h>

#include "odx_core.h"

#define VERSION 1u
#define HEAD_FIELDS 128u
#define LONGEST_SLOT (1u << 20)
#define REQUEST_CHECKSUM 36u
#define RESPONSE_CHECKSUM 44u

static const uint8_t head_magic[16] = "QEMU-ODX-MAILBOX"; /* without its final zero: 16 is the field's size */
static const uint8_t request_magic[4] = {'O', 'D', 'X', 'Q'};
static const uint8_t response_magic[4] = {'O', 'D', 'X', 'A'};

/* CRC-32 as in zlib: polynomial EDB88320h reflected. `crc` is what came before, 0 at the beginning. */
uint32_t odx_crc32(const uint8_t *data, size_t length, uint32_t crc)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    crc = ~crc;
    for (size_t index = 0; index < length; index++) {
        crc ^= data[index];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

/* The checksum of a page whose own field counts as zero. */
static uint32_t checksum(const uint8_t *page, uint32_t field, uint32_t length)
{
    static const uint8_t zeros[4];
    uint32_t crc = odx_crc32(page, field, 0);
    crc = odx_crc32(zeros, sizeof zeros, crc);
    return odx_crc32(page + field + 4, length - field - 4, crc);
}

static uint32_t whole_blocks(const odx_mailbox *mailbox, uint32_t length)
{
    return (length + mailbox->block_size - 1) / mailbox->block_size * mailbox->block_size;
}

/* Numbers with which every access stays inside a slot, and the slots inside the window. */
static bool sane(const odx_mailbox *mailbox, uint64_t window, uint64_t length, uint32_t first)
{
    uint32_t size = mailbox->block_size;
    if (size < 512 || size > MAILBOX_HEAD_READ || (size & (size - 1)) != 0)
        return false;
    if (mailbox->slots == 0 || mailbox->slot_size > LONGEST_SLOT || mailbox->slot_size % size != 0)
        return false;
    if (mailbox->response_offset % size != 0 || first % size != 0 || mailbox->response_offset > mailbox->slot_size)
        return false;
    if (whole_blocks(mailbox, MAILBOX_HEADER + mailbox->most_out) > mailbox->response_offset)
        return false;
    if (whole_blocks(mailbox, MAILBOX_HEADER + mailbox->most_in) > mailbox->slot_size - mailbox->response_offset)
        return false;
    if (window % size != 0 || window > INT64_MAX - length || length > INT64_MAX)
        return false;
    return first + (uint64_t)mailbox->slots * mailbox->slot_size <= length;
}

/* Whether `head`, read at MAILBOX_PLACE, is the head page of a window there; if so, what it says. */
bool odx_mailbox_head(const uint8_t *head, size_t length, odx_mailbox *mailbox)
{
    if (length < HEAD_FIELDS || memcmp(head, head_magic, sizeof head_magic) != 0 || get_le32(head + 16) != VERSION)
        return false;
    if (odx_crc32(head, 124, 0) != get_le32(head + 124) || get_le64(head + 48) != MAILBOX_PLACE)
        return false;
    uint32_t first = get_le32(head + 28);
    *mailbox = (odx_mailbox){
        .place = MAILBOX_PLACE + (uint64_t)first,
        .slots = get_le32(head + 20),
        .slot_size = get_le32(head + 24),
        .response_offset = get_le32(head + 32),
        .most_out = get_le32(head + 36),
        .most_in = get_le32(head + 40),
        .block_size = get_le32(head + 44),
    };
    if (mailbox->slots > MAILBOX_MOST_SLOTS)
        mailbox->slots = MAILBOX_MOST_SLOTS;
    if (mailbox->most_out > MAILBOX_PAGE - MAILBOX_HEADER)
        mailbox->most_out = MAILBOX_PAGE - MAILBOX_HEADER;
    if (mailbox->most_in > MAILBOX_PAGE - MAILBOX_HEADER)
        mailbox->most_in = MAILBOX_PAGE - MAILBOX_HEADER;
    return sane(mailbox, MAILBOX_PLACE, get_le64(head + 56), first);
}

/* Write a request to `page` (MAILBOX_PAGE bytes); the bytes to write to the slot, 0 if the packet is too large. */
uint32_t odx_mailbox_request(const odx_mailbox *mailbox, uint8_t *page, odx_letter letter, const odx_packet *packet)
{
    if (packet->data_out_length > mailbox->most_out || packet->data_in_room > mailbox->most_in)
        return 0;
    uint32_t length = MAILBOX_HEADER + packet->data_out_length, whole = whole_blocks(mailbox, length);
    memset(page, 0, whole);
    memcpy(page, request_magic, sizeof request_magic);
    put_le16(page + 4, VERSION);
    put_le16(page + 6, MAILBOX_HEADER);
    put_le64(page + 8, letter.sequence);
    put_le64(page + 16, letter.user);
    put_le32(page + 24, packet->cdb[0] == OP_INQUIRY ? 6 : CDB_BYTES);
    put_le32(page + 28, packet->data_out_length);
    put_le32(page + 32, packet->data_in_room);
    memcpy(page + 48, packet->cdb, CDB_BYTES);
    if (packet->data_out_length > 0)
        memcpy(page + MAILBOX_HEADER, packet->data_out, packet->data_out_length);
    put_le32(page + REQUEST_CHECKSUM, checksum(page, REQUEST_CHECKSUM, length));
    return whole;
}

/* Bytes to read from the slot's response area for this packet's answer. */
uint32_t odx_mailbox_response_room(const odx_mailbox *mailbox, const odx_packet *packet)
{
    return whole_blocks(mailbox, MAILBOX_HEADER + packet->data_in_room);
}

/*
 * Take the response in `page` into the packet. ODX_SUCCESS: it is the answer to `letter`; *result is 0 if the command
 * was executed. Anything else: no answer to us, or a damaged one, and the packet is as before.
 */
odx_status odx_mailbox_response(const uint8_t *page, size_t length, odx_letter letter, odx_packet *packet,
                                uint32_t *result)
{
    if (length < MAILBOX_HEADER || memcmp(page, response_magic, sizeof response_magic) != 0)
        return ODX_IO_DEVICE_ERROR;
    uint32_t data = get_le32(page + 36), sense = get_le32(page + 32);
    if (get_le16(page + 4) != VERSION || get_le16(page + 6) != MAILBOX_HEADER || sense > SENSE_ROOM)
        return ODX_IO_DEVICE_ERROR;
    if (data > packet->data_in_room || data > length - MAILBOX_HEADER)
        return ODX_IO_DEVICE_ERROR;
    if (checksum(page, RESPONSE_CHECKSUM, MAILBOX_HEADER + data) != get_le32(page + RESPONSE_CHECKSUM))
        return ODX_IO_DEVICE_ERROR;
    if (get_le64(page + 8) != letter.sequence || get_le64(page + 16) != letter.user)
        return ODX_IO_DEVICE_ERROR;
    *result = get_le32(page + 24);
    if (*result != 0)
        return ODX_SUCCESS;
    packet->scsi_status = (uint8_t)get_le32(page + 28);
    packet->sense_length = sense;
    memcpy(packet->sense, page + 48, sense);
    packet->data_in_length = data;
    if (data > 0)
        memcpy(packet->data_in, page + MAILBOX_HEADER, data);
    return ODX_SUCCESS;
}
