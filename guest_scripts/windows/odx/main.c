/* The table of commands, and `odx batch FILE`, which runs a command for each line of a file. */
#include <stdlib.h>
#include <string.h>

#include "odx.h"

#define LONGEST_LINE 8192
#define MOST_WORDS 300

static const struct {
    const char *name;
    int (*run)(const arguments *given);
} commands[] = {
    {"ioctl", command_ioctl},       {"property", command_property}, {"fsctl", command_fsctl}, {"scsi", command_scsi},
    {"copyfile", command_copyfile}, {"disk", command_disk},
};

static const char usage[] =
    "odx ioctl read DISK --range OFFSET:LENGTH... [--ttl N] [--token FILE]\n"
    "odx ioctl write DISK --token FILE|zero --range OFFSET:LENGTH... [--token-offset N]\n"
    "odx ioctl copy SOURCE DESTINATION --from OFFSET --to OFFSET --length N\n"
    "odx property DISK [--exists]\n"
    "odx fsctl copy SOURCE DESTINATION\n"
    "odx scsi populate|receive|write DISK [--range LBA:BLOCKS...] [--token FILE|zero] [--set list=N]\n"
    "odx copyfile SOURCE DESTINATION\n"
    "odx disk fill|hash DISK --from OFFSET --length N [--set seed=N]\n"
    "odx batch FILE\n"
    "A DISK is \\\\.\\PhysicalDriveN. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not supported by this path.\n";

int run_command(int count, char **words)
{
    static arguments given;
    int code = EXIT_USAGE;
    json_begin();
    if (count > 0)
        json_text("command", words[0]);
    bool parsed = parse_arguments(&given, count, words) && given.count > 0;
    for (size_t index = 0; parsed && index < sizeof commands / sizeof commands[0]; index++)
        if (strcmp(given.words[0], commands[index].name) == 0)
            code = commands[index].run(&given);
    if (code == EXIT_USAGE) /* no command returns it after it has printed something */
        json_end(code);
    return code;
}

static int batch(const char *path)
{
    static char line[LONGEST_LINE];
    int worst = EXIT_OK;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fprintf(stderr, "odx: cannot open %s\n", path);
        return EXIT_FAILED;
    }
    while (fgets(line, sizeof line, file) != NULL) {
        char *words[MOST_WORDS];
        int count = 0;
        for (char *word = strtok(line, " \r\n"); word != NULL && count < MOST_WORDS; word = strtok(NULL, " \r\n"))
            words[count++] = word;
        if (count > 0 && run_command(count, words) == EXIT_USAGE)
            worst = EXIT_USAGE;
    }
    fclose(file);
    return worst; /* what the commands found is in their lines */
}

int main(int count, char **words)
{
    if (count == 3 && strcmp(words[1], "batch") == 0)
        return batch(words[2]);
    if (count < 2) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    int code = run_command(count - 1, words + 1);
    if (code == EXIT_USAGE)
        fputs(usage, stderr);
    return code;
}
