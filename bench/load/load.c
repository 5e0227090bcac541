/* A load generator for vhost-user-blk and vhost-user-scsi back ends.
 *
 * Keeps a number of requests in flight, sleeps for the interrupt when none has completed (as a guest does), and
 * prints one line of JSON. With --verify every block that was written carries its number and generation, every
 * read is compared, and in the end the whole span is read again.
 *
 * Exit status: 0; 1: the back end or an argument is at fault; 2: wrong data were read.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PATIENCE = 60, BUCKETS = 64 * 32 };

static struct {
    const char *socket;
    struct work work;
    int queues, depth, write_percent;
    uint16_t queue_size;
    bool sequential, verify, direct_layout;
    double seconds;
    uint64_t count, span, seed;
} options = {.queues = 1, .depth = 1, .queue_size = 128, .seconds = 1e9, .count = ~0ull, .span = 256 << 20, .seed = 1,
             .work = {.block_size = 4096}};

static struct {
    uint64_t submitted, completed, wrong, next;
    uint32_t *generation; /* of each block; with --verify only */
    bool *busy;
    bool filling, checking;
    uint64_t latency[BUCKETS], total_ns, longest;
} state;

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t random_number(void)
{
    options.seed ^= options.seed << 13;
    options.seed ^= options.seed >> 7;
    return options.seed ^= options.seed << 17;
}

/* -- latencies: 32 buckets for each power of two -------------------------------------------------------------- */

static void count_latency(uint64_t ns)
{
    int power = ns < 64 ? 0 : 58 - __builtin_clzll(ns);
    state.latency[power * 32 + (int)((ns >> power) & 63)]++;
    state.total_ns += ns;
    if (ns > state.longest)
        state.longest = ns;
}

static double percentile(double part)
{
    uint64_t seen = 0, wanted = (uint64_t)(part * (double)state.completed);
    for (int n = 0; n < BUCKETS; n++) {
        seen += state.latency[n];
        if (seen > wanted) {
            int power = n < 64 ? 0 : n / 32 - 1;
            return (double)((uint64_t)(n - power * 32) << power) / 1000;
        }
    }
    return (double)state.longest / 1000;
}

/* -- requests ------------------------------------------------------------------------------------------------- */

static bool choose_block(uint64_t *block)
{
    if (options.sequential || state.filling || state.checking) {
        *block = state.next++ % options.work.blocks;
        return !options.verify || !state.busy[*block];
    }
    for (int tries = 0; tries < 1000; tries++) {
        *block = random_number() % options.work.blocks;
        if (!options.verify || !state.busy[*block])
            return true;
    }
    return false;
}

static void submit(struct front_end *front, struct queue *queue, struct slot *slot)
{
    uint64_t block;
    if (!choose_block(&block))
        fail("the span is too small for so many requests in flight");
    bool write = state.filling || (!state.checking && random_number() % 100 < (uint64_t)options.write_percent);
    slot_prepare(slot, &options.work, block, write);
    if (slot->started == 0 || options.write_percent % 100 || options.verify)
        slot_lay_out(slot, front, queue, &options.work);
    if (options.verify) {
        state.busy[block] = true;
        if (write)
            pattern_fill(slot->data, options.work.block_size, block, ++state.generation[block]);
        else
            memset(slot->data, 0xee, options.work.block_size);
    }
    slot->started = now();
    state.submitted++;
    queue_offer(queue, slot->head);
}

static void check(const struct slot *slot)
{
    state.busy[slot->block] = false;
    if (slot->write || pattern_holds(slot->data, options.work.block_size, slot->block, state.generation[slot->block]))
        return;
    if (!state.wrong++)
        fprintf(stderr, "load: wrong data at byte %llu: not generation %u\n",
                (unsigned long long)(slot->block * options.work.block_size), state.generation[slot->block]);
}

/* Take one completion: false if there is none. The slot is the caller's again, unless it was sent once more. */
static bool collect(struct queue *queue, struct slot *slots, int stride, struct slot **done)
{
    uint16_t head;
    uint32_t written;
    bool again;
    if (!queue_take(queue, &head, &written))
        return false;
    struct slot *slot = &slots[head / stride];
    const char *wrong = slot_result(slot, &options.work, written, &again);
    if (wrong)
        fail("%s (%s of block %llu, %u bytes written)", wrong, slot->write ? "write" : "read",
             (unsigned long long)slot->block, written);
    if (again) {
        slot_prepare(slot, &options.work, slot->block, slot->write);
        queue_offer(queue, head);
        *done = NULL;
        return true;
    }
    count_latency(now() - slot->started);
    state.completed++;
    if (options.verify)
        check(slot);
    *done = slot;
    return true;
}

static bool serve(struct front_end *front, struct slot **slots, int stride, uint64_t count, uint64_t until)
{
    bool any = false;
    for (int n = 0; n < front->queue_count; n++) {
        struct queue *queue = &front->queues[n];
        struct slot *slot;
        while (collect(queue, slots[n], stride, &slot)) {
            any = true;
            if (slot && state.submitted < count && slot->started < until)
                submit(front, queue, slot);
        }
        queue_publish(queue);
    }
    return any;
}

static void sleep_if_idle(struct front_end *front)
{
    bool came = false;
    for (int n = 0; n < front->queue_count; n++)
        came |= queue_arm(&front->queues[n]);
    if (!came)
        front_end_wait(front, PATIENCE);
}

/* Keep `depth` requests in flight until `count` were submitted or `until` has come, then drain. */
static void run(struct front_end *front, struct slot **slots, int stride, uint64_t count, uint64_t until)
{
    uint64_t start = state.submitted, done = state.completed;
    count = count > ~0ull - start ? ~0ull : start + count;
    for (int n = 0; n < options.depth && state.submitted < count; n++)
        submit(front, &front->queues[n % options.queues], &slots[n % options.queues][n / options.queues]);
    for (int n = 0; n < options.queues; n++)
        queue_publish(&front->queues[n]);
    while (state.completed - done < state.submitted - start)
        if (!serve(front, slots, stride, count, until))
            sleep_if_idle(front);
}

/* -- program -------------------------------------------------------------------------------------------------- */

static uint64_t number(const char *text, const char *name, uint64_t least, uint64_t most)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || value < least || value > most)
        fail("--%s=%s: a number from %llu to %llu is needed", name, text, (unsigned long long)least,
             (unsigned long long)most);
    return value;
}

static const struct option known[] = {
    {"socket", 1, 0, 's'}, {"device", 1, 0, 'd'}, {"queues", 1, 0, 'q'}, {"depth", 1, 0, 'n'},
    {"queue-size", 1, 0, 'z'}, {"write-percent", 1, 0, 'w'}, {"block", 1, 0, 'b'}, {"segment", 1, 0, 'g'},
    {"span", 1, 0, 'p'}, {"seconds", 1, 0, 't'}, {"count", 1, 0, 'c'}, {"seed", 1, 0, 'r'},
    {"sequential", 0, 0, 'S'}, {"verify", 0, 0, 'v'}, {"direct-layout", 0, 0, 'l'}, {0, 0, 0, 0}};

static void take_option(int letter, const char *name)
{
    switch (letter) {
    case 's': options.socket = optarg; break;
    case 'd':
        options.work.scsi = !strcmp(optarg, "scsi");
        if (!options.work.scsi && strcmp(optarg, "blk"))
            fail("--device=%s: blk or scsi is needed", optarg);
        break;
    case 'q': options.queues = (int)number(optarg, name, 1, MAX_QUEUES); break;
    case 'n': options.depth = (int)number(optarg, name, 1, 4096); break;
    case 'z': options.queue_size = (uint16_t)number(optarg, name, 1, 32768); break;
    case 'w': options.write_percent = (int)number(optarg, name, 0, 100); break;
    case 'b': options.work.block_size = (uint32_t)number(optarg, name, 512, 16 << 20); break;
    case 'g': options.work.segment = (uint32_t)number(optarg, name, 512, 16 << 20); break;
    case 'p': options.span = number(optarg, name, 512, 1ull << 40); break;
    case 't': options.seconds = (double)number(optarg, name, 1, 1000000) / 1000; break; /* milliseconds */
    case 'c': options.count = number(optarg, name, 1, ~0ull); break;
    case 'r': options.seed = number(optarg, name, 1, ~0ull); break;
    case 'S': options.sequential = true; break;
    case 'v': options.verify = true; break;
    case 'l': options.direct_layout = true; break;
    default: fail("see the table of options in load.c");
    }
}

static int parse(int argc, char **argv)
{
    int letter, place;
    while ((letter = getopt_long(argc, argv, "", known, &place)) != -1)
        take_option(letter, letter == '?' ? "" : known[place].name);
    struct work *work = &options.work;
    if (!work->segment || work->segment > work->block_size)
        work->segment = work->block_size;
    work->blocks = options.span / work->block_size;
    int stride = options.direct_layout ? descriptors_of(work) : 1;
    int in_queue = (options.depth + options.queues - 1) / options.queues;
    if (!options.socket || optind != argc)
        fail("--socket=PATH is needed, and nothing but options");
    if (options.queue_size & (options.queue_size - 1) || in_queue * stride > options.queue_size)
        fail("--queue-size: a power of 2 of at least %d is needed", in_queue * stride);
    if (work->block_size % 512 || work->segment % 512 || work->blocks < (uint64_t)options.depth)
        fail("block and segment must be whole sectors, and the span hold a block for each request in flight");
    if (options.seconds >= 1e9 && options.count == ~0ull)
        fail("--seconds=MILLISECONDS or --count=REQUESTS is needed");
    return stride;
}

static void report(const struct front_end *front, double seconds)
{
    uint64_t kicks = 0;
    for (int n = 0; n < front->queue_count; n++)
        kicks += front->queues[n].kicks;
    double all = (double)state.completed;
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"iops\": %.1f, \"mb_per_second\": %.2f, \"mean_us\": %.2f, "
           "\"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f, "
           "\"kicks\": %llu, \"interrupts\": %llu, \"wrong\": %llu}\n",
           (unsigned long long)state.completed, seconds, all / seconds, all * options.work.block_size / seconds / 1e6,
           (double)state.total_ns / all / 1000, percentile(.5), percentile(.9), percentile(.99), percentile(.999),
           (double)state.longest / 1000, (unsigned long long)kicks, (unsigned long long)front->interrupts,
           (unsigned long long)state.wrong);
}

static void forget_counts(void)
{
    memset(state.latency, 0, sizeof state.latency);
    state.total_ns = state.longest = state.submitted = state.completed = state.next = 0;
}

int main(int argc, char **argv)
{
    static struct front_end front;
    static struct slot *slots[MAX_QUEUES];
    int stride = parse(argc, argv), in_queue = (options.depth + options.queues - 1) / options.queues;
    size_t parts = (size_t)descriptors_of(&options.work);
    size_t ram = (size_t)options.queues * (options.queue_size * 32u + (64u << 10)) +
                 (size_t)options.depth * (options.work.block_size + 16 * parts + 8192);
    front.indirect = !options.direct_layout;
    front_end_start(&front, options.socket, options.work.scsi, options.queues, options.queue_size, ram + (4u << 20));
    if (front.capacity && options.span > front.capacity)
        fail("the disk has %llu bytes, less than the span", (unsigned long long)front.capacity);
    if (!front.indirect && !options.direct_layout)
        fail("the back end has no indirect descriptors: use --direct-layout");
    for (int q = 0; q < options.queues; q++) {
        slots[q] = calloc((size_t)in_queue, sizeof **slots);
        for (int n = 0; n < in_queue; n++)
            slot_make(&front, &front.queues[q], &options.work, &slots[q][n], n);
    }
    if (options.verify) {
        state.generation = calloc(options.work.blocks, sizeof *state.generation);
        state.busy = calloc(options.work.blocks, sizeof *state.busy);
        state.filling = true;
        run(&front, slots, stride, options.work.blocks, ~0ull);
        state.filling = false;
        forget_counts();
    }
    uint64_t start = now();
    run(&front, slots, stride, options.count, options.seconds >= 1e9 ? ~0ull : start + (uint64_t)(options.seconds * 1e9));
    double seconds = (double)(now() - start) / 1e9;
    uint64_t measured = state.completed;
    if (options.verify) {
        state.next = 0;
        state.checking = true;
        run(&front, slots, stride, options.work.blocks, ~0ull);
        state.completed = measured;
    }
    report(&front, seconds);
    return state.wrong ? 2 : 0;
}
