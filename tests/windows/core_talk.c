/*
 * The driver's core as a program: requests as lines on standard input, every SCSI packet as a line on standard output
 * whose answer is the next line of input. Built with AddressSanitizer and UBSan; every buffer has exactly the length
 * the request says, so that a byte beyond it is found.
 *
 *   disk BLOCK BYTES SUPPORTED RANGES MAXLIFE DEFLIFE MAXBLOCKS OPTBLOCKS MTL OTL GRANULARITY MAXTRANSFER
 *   discover | property OUT IN-HEX | dsm ALLOWED LEVEL OUT IN-HEX | identifier N
 *   -> packet CDB OUT-HEX ROOM   <- done STATUS SENSE-HEX DATA-HEX MILLISECONDS | lost NTSTATUS
 *   -> pause MILLISECONDS        -> end NTSTATUS INFORMATION BUFFER-HEX       -> disk ...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "odx_core.h"

#define LONGEST (1u << 19)
#define SCRATCH (ODX_LIST_ROOM + 65535u)

static char line[LONGEST];
static uint64_t now;
static uint32_t identifier;
static odx_disk disk;

static void put_hex(const uint8_t *data, size_t length)
{
    putchar(' ');
    if (length == 0)
        putchar('-');
    for (size_t index = 0; index < length; index++)
        printf("%02x", data[index]);
}

static uint8_t *get_hex(const char *text, uint32_t *length) /* a buffer of just that length */
{
    *length = text[0] == '-' ? 0 : (uint32_t)strlen(text) / 2;
    uint8_t *data = malloc(*length);
    for (uint32_t index = 0; index < *length; index++) {
        unsigned value;
        sscanf(text + 2 * index, "%2x", &value);
        data[index] = (uint8_t)value;
    }
    return data;
}

static char *next_line(void)
{
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL)
        exit(0);
    line[strcspn(line, "\n")] = 0;
    return line;
}

static odx_status execute(void *context, odx_packet *packet)
{
    (void)context;
    printf("packet");
    put_hex(packet->cdb, CDB_BYTES);
    put_hex(packet->data_out, packet->data_out_length);
    printf(" %u\n", packet->data_in_room);
    char *word = strtok(next_line(), " ");
    if (strcmp(word, "lost") == 0)
        return (odx_status)strtoul(strtok(NULL, " "), NULL, 0);
    packet->scsi_status = (uint8_t)atoi(strtok(NULL, " "));
    uint32_t sense_length, length;
    uint8_t *sense = get_hex(strtok(NULL, " "), &sense_length), *data = get_hex(strtok(NULL, " "), &length);
    now += strtoull(strtok(NULL, " "), NULL, 0);
    packet->sense_length = sense_length < SENSE_ROOM ? sense_length : SENSE_ROOM;
    memcpy(packet->sense, sense, packet->sense_length);
    packet->data_in_length = length < packet->data_in_room ? length : packet->data_in_room;
    if (packet->data_in_length > 0)
        memcpy(packet->data_in, data, packet->data_in_length);
    free(sense);
    free(data);
    return ODX_SUCCESS;
}

static uint64_t milliseconds(void *context) { (void)context; return now; }
static uint32_t list_identifier(void *context) { (void)context; return identifier++; }
static void wait(void *context, uint32_t length)
{
    (void)context;
    now += length;
    printf("pause %u\n", length);
}

static unsigned long long number(void)
{
    char *word = strtok(NULL, " ");
    return word == NULL ? 0 : strtoull(word, NULL, 0);
}

static void set_disk(void)
{
    memset(&disk, 0, sizeof disk);
    disk.port = (odx_port){NULL, execute, milliseconds, wait, list_identifier, 0};
    disk.block_size = (uint32_t)number();
    disk.bytes = number();
    disk.supported = number() != 0;
    disk.max_ranges = (uint16_t)number();
    disk.max_lifetime = (uint32_t)number();
    disk.default_lifetime = (uint32_t)number();
    disk.max_blocks = number();
    disk.optimal_blocks = number();
    disk.max_descriptor = (uint32_t)number();
    disk.optimal_descriptor = (uint32_t)number();
    disk.granularity = (uint16_t)number();
    disk.port.max_transfer = (uint32_t)number();
}

static void discover(void)
{
    uint8_t *scratch = malloc(ODX_VPD_ROOM);
    odx_discover(&disk, scratch);
    free(scratch);
    printf("disk %u %llu %d %u %u %u %llu %llu %u %u %u\n", disk.block_size, (unsigned long long)disk.bytes,
           disk.supported, disk.max_ranges, disk.max_lifetime, disk.default_lifetime,
           (unsigned long long)disk.max_blocks, (unsigned long long)disk.optimal_blocks, disk.max_descriptor,
           disk.optimal_descriptor, disk.granularity);
}

/* The buffer of METHOD_BUFFERED: as long as the longer of input and output. */
static uint8_t *shared_buffer(uint32_t room, uint32_t *in_length, uint32_t *whole)
{
    char *word = strtok(NULL, " ");
    uint8_t *in = get_hex(word == NULL ? "-" : word, in_length);
    *whole = *in_length > room ? *in_length : room;
    uint8_t *buffer = calloc(1, *whole);
    if (*in_length > 0)
        memcpy(buffer, in, *in_length);
    free(in);
    return buffer;
}

static void end(odx_status status, uint32_t information, uint8_t *buffer, uint32_t whole)
{
    printf("end 0x%08X %u", status, information);
    put_hex(buffer, whole);
    putchar('\n');
    free(buffer);
}

static void run_dsm(void)
{
    odx_dsm dsm = {0};
    dsm.caller_allowed = number() != 0;
    dsm.level_allowed = number() != 0;
    dsm.out_length = (uint32_t)number();
    uint32_t whole;
    dsm.buffer = shared_buffer(dsm.out_length, &dsm.in_length, &whole);
    odx_status status = odx_dsm_check(&disk, &dsm);
    if (status == ODX_SUCCESS) {
        dsm.scratch = malloc(SCRATCH);
        dsm.scratch_length = SCRATCH;
        status = odx_dsm_run(&disk, &dsm);
        free(dsm.scratch);
    }
    end(status, dsm.information, dsm.buffer, whole);
}

static void run_property(void)
{
    uint32_t room = (uint32_t)number(), length, whole, information;
    uint8_t *buffer = shared_buffer(room, &length, &whole);
    odx_status status = odx_property(&disk, buffer, length, room, &information);
    end(status, information, buffer, whole);
}

int main(void)
{
    for (;;) {
        char *word = strtok(next_line(), " ");
        if (strcmp(word, "disk") == 0)
            set_disk();
        else if (strcmp(word, "discover") == 0)
            discover();
        else if (strcmp(word, "identifier") == 0)
            identifier = (uint32_t)number();
        else if (strcmp(word, "dsm") == 0)
            run_dsm();
        else if (strcmp(word, "property") == 0)
            run_property();
    }
}
