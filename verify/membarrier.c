/* Does membarrier reach every thread that it promises to?
 *
 * Two threads of one process, on two processors, each store to a word of their own, then load the other's (Dekker's
 * pattern). The slow one has the barrier in between, the fast one nothing but a compiler's. Both reading old values
 * means that the barrier did not reach the fast one. That one stores to lines first that the other has just
 * written, so that its own store waits for a while before it is seen.
 *
 * Before it, the process gets the second processor's note of what it runs (rq->membarrier_state) out of step:
 *   idle   a thread has run there, nothing else has since, and the process registers on another processor
 *   exit   a thread that runs there exits, and the fast one is the next to run there
 * Both take a machine that has nothing else to do: what other process runs there sets it right. Linux 6.18.44, two
 * processors, 200,000 rounds a run: with `global`, the fast one was overlooked in up to 111 rounds after `idle`, up
 * to 3 after `exit`, in a fifth to a half of the runs; with `private` never; without any in some 60,000.
 *
 *   cc -O2 -pthread -o /tmp/membarrier verify/membarrier.c && /tmp/membarrier
 */
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 200000
#define LINES 40 /* stores that are under way when the fast one makes its own */

struct line {
    _Alignas(128) atomic_long word;
};
static struct line busy[LINES], mine, its, turn, done;
static long fast_saw;

static long load(struct line *at) {
    return atomic_load_explicit(&at->word, memory_order_relaxed);
}

static void store(struct line *at, long value) {
    atomic_store_explicit(&at->word, value, memory_order_relaxed);
}

static void run_on(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    if (sched_setaffinity(0, sizeof set, &set)) {
        perror("needs two processors");
        exit(2);
    }
}

static void work(void) {
    for (volatile long i = 0; i < 1000000; i++)
        ;
}

static void *brief(void *unused) {
    run_on(1);
    work();
    return unused;
}

static void *fast(void *unused) {
    run_on(1);
    for (long round = 1; round <= ROUNDS; round++) {
        while (atomic_load_explicit(&turn.word, memory_order_acquire) < round)
            ;
        for (int i = 0; i < LINES; i++)
            store(&busy[i], round);
        store(&its, round);
        atomic_signal_fence(memory_order_seq_cst);
        fast_saw = load(&mine);
        atomic_store_explicit(&done.word, round, memory_order_release);
    }
    return unused;
}

static long barrier(int command) {
    return command ? syscall(SYS_membarrier, command, 0, 0) : 0;
}

static void rounds(const char *before, const char *name, int registration, int command) {
    pthread_t thread;
    if (!strcmp(before, "idle")) {
        run_on(1);
        work();
    }
    run_on(0);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    if (barrier(registration)) {
        perror("membarrier");
        exit(2);
    }
    if (!strcmp(before, "exit")) {
        pthread_create(&thread, NULL, brief, NULL);
        pthread_join(thread, NULL);
    }
    pthread_create(&thread, NULL, fast, NULL);
    long overlooked = 0;
    for (long round = 1; round <= ROUNDS; round++) {
        for (int i = 0; i < LINES; i++)
            store(&busy[i], -round);
        atomic_store_explicit(&turn.word, round, memory_order_release);
        for (volatile int i = 0; i < (rand() & 63); i++)
            ;
        store(&mine, round);
        atomic_signal_fence(memory_order_seq_cst);
        barrier(command);
        long slow_saw = load(&its);
        while (atomic_load_explicit(&done.word, memory_order_acquire) < round)
            ;
        overlooked += slow_saw != round && fast_saw != round;
    }
    pthread_join(thread, NULL);
    printf("%s\t%s\t%ld of %d\n", before, name, overlooked, ROUNDS);
}

int main(void) {
    static const struct {
        const char *name;
        int registration, command;
    } ways[] = {
        {"none", 0, 0},
        {"global", MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, MEMBARRIER_CMD_GLOBAL_EXPEDITED},
        {"private", MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED},
    };
    static const char *const befores[] = {"idle", "exit"};
    for (int run = 0; run < 10; run++)
        for (int before = 0; before < 2; before++)
            for (int way = 0; way < 3; way++) {
                /* Each in a process of its own: registering is for good. */
                pid_t child = fork();
                if (child == 0) {
                    rounds(befores[before], ways[way].name, ways[way].registration, ways[way].command);
                    return 0;
                }
                waitpid(child, NULL, 0);
            }
    return 0;
}
