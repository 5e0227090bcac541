#define _GNU_SOURCE
#include "front_end.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { /* requests */
    GET_FEATURES = 1, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 5, SET_VRING_NUM = 8, SET_VRING_ADDR,
    SET_VRING_BASE, SET_VRING_KICK = 12, SET_VRING_CALL, GET_PROTOCOL_FEATURES = 15, SET_PROTOCOL_FEATURES,
    GET_QUEUE_NUM, SET_VRING_ENABLE, GET_CONFIG = 24, GET_INFLIGHT_FD = 31, SET_INFLIGHT_FD,
};
#define BIT(n) (1ull << (n))
#define F_INDIRECT BIT(28)
#define F_EVENT_IDX BIT(29)
#define F_PROTOCOL BIT(30)
#define F_VERSION_1 BIT(32)
#define F_BLK (BIT(2) | BIT(6) | BIT(9) | BIT(11) | BIT(12)) /* SEG_MAX BLK_SIZE FLUSH CONFIG_WCE MQ */
#define P_MQ BIT(0)
#define P_CONFIG BIT(9)
#define P_INFLIGHT BIT(12)

struct header { uint32_t request, flags, size; };
struct inflight { uint64_t size, offset; uint16_t queues, entries; uint32_t pad; };

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void tell(struct front_end *front, uint32_t request, const void *payload, uint32_t size, int fd)
{
    struct header header = {request, 1, size};
    struct iovec parts[2] = {{&header, sizeof header}, {(void *)payload, size}};
    union { char bytes[CMSG_SPACE(sizeof fd)]; struct cmsghdr align; } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    }
    if (sendmsg(front->socket, &message, MSG_NOSIGNAL) != (ssize_t)(sizeof header + size))
        fail("request %u: %s", request, strerror(errno));
}

/* The reply's payload, of exactly `size` bytes; returns the descriptor that came with it, or -1. */
static int reply(struct front_end *front, uint32_t request, void *payload, uint32_t size)
{
    struct header header;
    int fd = -1;
    struct iovec part = {&header, sizeof header};
    union { char bytes[CMSG_SPACE(sizeof fd)]; struct cmsghdr align; } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    if (recvmsg(front->socket, &message, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof header)
        fail("request %u: the back end closed the connection", request);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (rights && rights->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(rights), sizeof fd);
    if (header.request != request || header.flags != 5 || header.size != size ||
        recv(front->socket, payload, size, MSG_WAITALL) != (ssize_t)size)
        fail("request %u was answered by %u, %u bytes, flags %x", request, header.request, header.size, header.flags);
    return fd;
}

static uint64_t ask(struct front_end *front, uint32_t request)
{
    uint64_t value;
    tell(front, request, NULL, 0, -1);
    reply(front, request, &value, sizeof value);
    return value;
}

static void tell_u64(struct front_end *front, uint32_t request, uint64_t value, int fd)
{
    tell(front, request, &value, sizeof value, fd);
}

static void tell_vring(struct front_end *front, uint32_t request, uint32_t index, uint32_t number)
{
    uint32_t state[2] = {index, number};
    tell(front, request, state, sizeof state, -1);
}

void *ram_take(struct front_end *front, size_t bytes, size_t align)
{
    size_t start = (front->ram_used + align - 1) / align * align;
    if (start + bytes > front->ram_size)
        fail("out of guest memory: fewer queues, less depth or smaller blocks are needed");
    front->ram_used = start + bytes;
    return front->ram + start;
}

uint64_t gpa_of(const struct front_end *front, const volatile void *at)
{
    return GUEST_BASE + (uint64_t)((const volatile uint8_t *)at - front->ram);
}

static void make_ram(struct front_end *front, size_t bytes)
{
    front->ram_size = (bytes + 0x1fffff) & ~(size_t)0x1fffff;
    front->ram_fd = memfd_create("load", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (front->ram_fd < 0 || ftruncate(front->ram_fd, (off_t)front->ram_size) ||
        fcntl(front->ram_fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
        fail("memfd: %s", strerror(errno));
    front->ram = mmap(NULL, front->ram_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, front->ram_fd, 0);
    if (front->ram == MAP_FAILED)
        fail("mmap of %zu bytes: %s", front->ram_size, strerror(errno));
}

static uint64_t negotiate(struct front_end *front, bool scsi, int total)
{
    uint64_t features = ask(front, GET_FEATURES);
    if (!(features & F_PROTOCOL) || !(features & F_EVENT_IDX) || !(features & F_VERSION_1))
        fail("the back end lacks protocol features, event index or version 1");
    uint64_t protocol = ask(front, GET_PROTOCOL_FEATURES) & (P_MQ | P_CONFIG | P_INFLIGHT);
    tell_u64(front, SET_PROTOCOL_FEATURES, protocol, -1);
    if (protocol & P_MQ && ask(front, GET_QUEUE_NUM) < (uint64_t)total)
        fail("the back end has fewer than %d queues", total);
    tell(front, SET_OWNER, NULL, 0, -1);
    if (!scsi) {
        struct { uint32_t offset, size, flags; uint64_t capacity; } __attribute__((packed)) config = {0, 8, 0, 0};
        tell(front, GET_CONFIG, &config, sizeof config, -1);
        reply(front, GET_CONFIG, &config, sizeof config);
        front->capacity = config.capacity * 512;
    }
    features &= F_INDIRECT | F_EVENT_IDX | F_PROTOCOL | F_VERSION_1 | (scsi ? 0 : F_BLK);
    front->indirect &= !!(features & F_INDIRECT);
    tell_u64(front, SET_FEATURES, features, -1);
    return protocol;
}

static void share_inflight(struct front_end *front, int total, uint16_t entries)
{
    struct inflight area = {0, 0, (uint16_t)total, entries, 0};
    tell(front, GET_INFLIGHT_FD, &area, sizeof area, -1);
    int fd = reply(front, GET_INFLIGHT_FD, &area, sizeof area);
    tell(front, SET_INFLIGHT_FD, &area, sizeof area, fd);
    close(fd);
}

static void share_memory(struct front_end *front)
{
    struct { uint32_t count, pad; uint64_t gpa, size, uva, offset; } table = {
        1, 0, GUEST_BASE, front->ram_size, (uint64_t)(uintptr_t)front->ram, 0};
    tell(front, SET_MEM_TABLE, &table, sizeof table, front->ram_fd);
}

static void start_queue(struct front_end *front, struct queue *queue, uint32_t index, uint16_t size)
{
    queue->size = size;
    queue->desc = ram_take(front, 16u * size, 4096);
    queue->avail = ram_take(front, 6u + 2u * size, 4096);
    queue->used = ram_take(front, 6u + 8u * size, 4096);
    queue->kick = eventfd(0, EFD_CLOEXEC);
    struct { uint32_t index, flags; uint64_t desc, used, avail, log; } address = {
        index, 0, (uint64_t)(uintptr_t)queue->desc, (uint64_t)(uintptr_t)queue->used,
        (uint64_t)(uintptr_t)queue->avail, 0};
    tell_vring(front, SET_VRING_NUM, index, size);
    tell_vring(front, SET_VRING_BASE, index, 0);
    tell(front, SET_VRING_ADDR, &address, sizeof address, -1);
    tell_u64(front, SET_VRING_CALL, index, front->call); /* one interrupt vector for all queues */
    tell_u64(front, SET_VRING_KICK, index, queue->kick);
    tell_vring(front, SET_VRING_ENABLE, index, 1);
}

void front_end_start(struct front_end *front, const char *path, bool scsi, int queues, uint16_t size, size_t ram)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int first = scsi ? 2 : 0; /* control and event queue (5.6.2) get no ring: nothing here needs them */
    if (strlen(path) >= sizeof address.sun_path)
        fail("the path of the socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    make_ram(front, ram);
    front->queue_count = queues;
    front->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    front->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (front->socket < 0 || connect(front->socket, (struct sockaddr *)&address, sizeof address))
        fail("%s: %s", path, strerror(errno));
    uint64_t protocol = negotiate(front, scsi, first + queues);
    if (protocol & P_INFLIGHT)
        share_inflight(front, first + queues, size);
    share_memory(front);
    for (int n = 0; n < queues; n++)
        start_queue(front, &front->queues[n], (uint32_t)(first + n), size);
    ask(front, GET_FEATURES); /* every message before it has been seen */
}

void queue_offer(struct queue *queue, uint16_t head)
{
    queue->avail[2 + (queue->next_avail++ & (queue->size - 1))] = head;
}

void queue_publish(struct queue *queue)
{
    uint16_t old = queue->published, new = queue->next_avail;
    if (old == new)
        return;
    atomic_thread_fence(memory_order_release);
    queue->avail[1] = queue->published = new;
    atomic_thread_fence(memory_order_seq_cst);
    uint16_t event = queue->used[2 + 4 * queue->size];
    if ((uint16_t)(new - event - 1) < (uint16_t)(new - old)) {
        queue->kicks++;
        if (eventfd_write(queue->kick, 1))
            fail("kick: %s", strerror(errno));
    }
}

bool queue_take(struct queue *queue, uint16_t *head, uint32_t *written)
{
    if (queue->last_used == queue->used[1])
        return false;
    atomic_thread_fence(memory_order_acquire);
    const volatile uint32_t *element = (const volatile uint32_t *)(queue->used + 2) + 2 * (queue->last_used & (queue->size - 1));
    if (element[0] >= queue->size)
        fail("the back end completed %u in a queue of %u", element[0], queue->size);
    *head = (uint16_t)element[0];
    *written = element[1];
    queue->last_used++;
    return true;
}

bool queue_arm(struct queue *queue)
{
    queue->avail[2 + queue->size] = queue->last_used;
    atomic_thread_fence(memory_order_seq_cst);
    return queue->last_used != queue->used[1];
}

void front_end_wait(struct front_end *front, int seconds)
{
    struct pollfd wait[2] = {{front->call, POLLIN, 0}, {front->socket, POLLIN, 0}};
    eventfd_t count;
    int ready = poll(wait, 2, seconds * 1000);
    if (ready == 0)
        fail("no completion in %d seconds", seconds);
    if (wait[1].revents)
        fail("the back end closed the connection");
    front->interrupts++;
    eventfd_read(front->call, &count);
}
