/*
 * What the end of a command means: an NTSTATUS, and whether the same command is sent again.
 *
 * The table is classpnp's (class.c, ClasspInterpretSenseInfo and what it calls; disk.c). What is left out because
 * it takes more than the copy's own packets: START STOP UNIT, bus resets and rescans.
 */
#include <string.h>

#include "odx_core.h"

#define ANY 0x100u
#define SECOND 1000u

typedef struct rule {
    uint8_t key;
    uint16_t asc, ascq; /* ANY fits all */
    odx_status status;
    bool retry;
    uint32_t wait;
} rule;

static const rule rules[] = { /* the first that fits counts */
    {0x1, ANY, ANY, ODX_SUCCESS, false, 0},
    {0x2, 0x04, 0x14, ODX_RETRY, true, 10 * SECOND},
    {0x2, 0x04, 0x01, ODX_DEVICE_NOT_READY, true, 10 * SECOND},
    {0x2, 0x04, 0x07, ODX_DEVICE_NOT_READY, true, 10 * SECOND},
    {0x2, 0x04, 0x00, ODX_DEVICE_NOT_READY, false, 0},
    {0x2, 0x04, 0x04, ODX_DEVICE_NOT_READY, false, 0},
    {0x2, 0x04, 0x08, ODX_DEVICE_NOT_READY, false, 0},
    {0x2, 0x04, 0x03, ODX_NO_MEDIA_IN_DEVICE, false, 0},
    {0x2, 0x3A, ANY, ODX_NO_MEDIA_IN_DEVICE, false, 0},
    {0x2, ANY, ANY, ODX_DEVICE_NOT_READY, true, 0},
    {0x3, 0x30, 0x01, ODX_UNRECOGNIZED_MEDIA, false, 0},
    {0x3, 0x30, 0x03, ODX_CLEANER_CARTRIDGE, false, 0},
    {0x3, ANY, ANY, ODX_DEVICE_DATA_ERROR, false, 0},
    {0x4, 0x08, 0x03, ODX_DEVICE_HARDWARE_ERROR, true, SECOND},
    {0x4, ANY, ANY, ODX_DEVICE_HARDWARE_ERROR, false, 0},
    {0x5, 0x00, 0x16, ODX_OPERATION_IN_PROGRESS, false, 0},
    {0x5, 0x08, 0x04, ODX_DEVICE_UNREACHABLE, false, 0},
    {0x5, 0x0D, 0x04, ODX_DATA_OVERRUN, false, 0},
    {0x5, 0x1A, ANY, ODX_DATA_OVERRUN, false, 0},
    {0x5, 0x21, ANY, ODX_NONEXISTENT_SECTOR, false, 0},
    {0x5, 0x23, ANY, ODX_INVALID_TOKEN, false, 0},
    {0x5, 0x24, ANY, ODX_INVALID_INITIATOR_TARGET_PATH, false, 0},
    {0x5, 0x25, ANY, ODX_NO_SUCH_DEVICE, false, 0},
    {0x5, 0x26, 0x04, ODX_INVALID_OFFSET_ALIGNMENT, false, 0},
    {0x5, 0x26, 0x08, ODX_TOO_MANY_SEGMENT_DESCRIPTORS, false, 0},
    {0x5, 0x26, ANY, ODX_INVALID_FIELD_IN_PARAMETER_LIST, false, 0},
    {0x5, 0x6F, 0x00, ODX_COPY_PROTECTION + 1, false, 0},
    {0x5, 0x6F, 0x01, ODX_COPY_PROTECTION + 2, false, 0},
    {0x5, 0x6F, 0x02, ODX_COPY_PROTECTION + 3, false, 0},
    {0x5, 0x6F, 0x03, ODX_COPY_PROTECTION + 4, false, 0},
    {0x5, 0x6F, 0x04, ODX_COPY_PROTECTION + 5, false, 0},
    {0x5, 0x6F, 0x05, ODX_COPY_PROTECTION + 6, false, 0},
    {0x5, 0x6F, ANY, ODX_COPY_PROTECTION, false, 0},
    {0x5, ANY, ANY, ODX_INVALID_DEVICE_REQUEST, false, 0},
    {0x6, 0x2A, 0x09, ODX_IO_DEVICE_ERROR, true, SECOND},
    {0x6, 0x3F, 0x01, ODX_IO_DEVICE_ERROR, true, SECOND},
    {0x6, 0x3F, ANY, ODX_IO_DEVICE_ERROR, true, 5 * SECOND},
    {0x6, 0x38, 0x07, ODX_IO_DEVICE_ERROR, true, 0},
    {0x6, 0x38, ANY, ODX_IO_DEVICE_ERROR, false, 0},
    {0x6, ANY, ANY, ODX_IO_DEVICE_ERROR, true, 0},
    {0x7, 0x27, 0x07, ODX_DISK_RESOURCES_EXHAUSTED, false, 0},
    {0x7, 0x27, ANY, ODX_IO_DEVICE_ERROR, false, 0},
    {0x7, ANY, ANY, ODX_ACCESS_DENIED, false, 0},
    {0x8, ANY, ANY, ODX_NO_DATA_DETECTED, false, 0},
    {0xA, 0x0D, 0x04, ODX_SUCCESS, false, 0},
    {0xB, 0x0D, 0x04, ODX_SUCCESS, false, 0},
    {0xB, 0x55, 0x03, ODX_INSUFFICIENT_RESOURCES, false, 0},
};

static const rule otherwise = {0, ANY, ANY, ODX_IO_DEVICE_ERROR, true, 0};

static const rule *find_rule(uint8_t key, uint8_t asc, uint8_t ascq)
{
    for (size_t index = 0; index < sizeof rules / sizeof rules[0]; index++) {
        const rule *row = &rules[index];
        if (row->key == key && (row->asc == ANY || row->asc == asc) && (row->ascq == ANY || row->ascq == ascq))
            return row;
    }
    return &otherwise;
}

/* The fields that Windows knows, in fixed format (SPC-4 4.5.3); those that did not come count as zero. */
static void normalise(const odx_packet *packet, uint8_t sense[18])
{
    memset(sense, 0, 18);
    memcpy(sense, packet->sense, packet->sense_length < 18 ? packet->sense_length : 18);
    if ((sense[0] & 0x7E) != 0x72)
        return;
    uint8_t key = sense[1], asc = sense[2], ascq = sense[3]; /* descriptor format: its INFORMATION does not fit */
    memset(sense, 0, 18);
    sense[2] = key & 0x0F;
    sense[12] = asc;
    sense[13] = ascq;
}

static odx_verdict judge_sense(const odx_packet *packet)
{
    uint8_t sense[18];
    normalise(packet, sense);
    uint8_t key = sense[2] & 0x0F;
    const rule *row = find_rule(key, sense[12], sense[13]);
    odx_verdict verdict = {.status = row->status, .retry = row->retry, .wait = row->wait};
    if (key == 0x0 && (sense[2] & 0x20) != 0) /* ILI */
        verdict = (odx_verdict){.status = ODX_INVALID_BLOCK_LENGTH};
    if ((key == 0xA || key == 0xB) && sense[12] == 0x0D && sense[13] == 0x04)
        verdict.information = get_be32(sense + 3); /* the VALID bit is not looked at, as in classpnp */
    verdict.news = key == 0x6 && sense[12] == 0x2A && sense[13] == 0x09;
    return verdict;
}

odx_verdict odx_judge(const odx_packet *packet)
{
    switch (packet->scsi_status) {
    case SCSI_GOOD:
        return (odx_verdict){.status = ODX_SUCCESS};
    case SCSI_RESERVATION_CONFLICT:
        return (odx_verdict){.status = ODX_DEVICE_BUSY};
    case SCSI_BUSY:
        return (odx_verdict){.status = ODX_DEVICE_NOT_READY, .retry = true};
    case SCSI_CHECK_CONDITION:
        return judge_sense(packet);
    default: /* TASK SET FULL and what a disk should not say */
        return (odx_verdict){.status = ODX_IO_DEVICE_ERROR, .retry = true};
    }
}

/* Send a packet, and again as often as `retries` and the disk's answers allow. */
odx_verdict odx_execute(odx_disk *disk, odx_packet *packet, uint32_t retries)
{
    for (;;) {
        packet->sense_length = 0;
        packet->data_in_length = 0;
        odx_status sent = disk->port.execute(disk->port.context, packet);
        if (sent != ODX_SUCCESS) {
            packet->scsi_status = SCSI_CHECK_CONDITION;
            return (odx_verdict){.status = sent};
        }
        odx_verdict verdict = odx_judge(packet);
        if (verdict.news)
            disk->stale = true; /* read again before the next request is checked */
        if (!verdict.retry || retries == 0)
            return verdict;
        retries--;
        if (verdict.wait > 0)
            disk->port.pause(disk->port.context, verdict.wait);
    }
}
