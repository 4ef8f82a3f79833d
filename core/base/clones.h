// NIBBLE_CLONES before a function compiles it for several instruction sets, of
// which the program takes the widest that the machine has.
#ifndef NIBBLE_CORE_BASE_CLONES_H_
#define NIBBLE_CORE_BASE_CLONES_H_

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NIBBLE_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define NIBBLE_CLONES
#endif

#endif  // NIBBLE_CORE_BASE_CLONES_H_
