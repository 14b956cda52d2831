// As leaky.c, with the leak in a member function of a class template.
#include <malloc.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace shop {

template <class T>
std::unique_ptr<T[]> filled(std::size_t count) {
  std::unique_ptr<T[]> block(new T[count]);
  std::memset(block.get(), 'x', count * sizeof(T));
  return block;
}

template <class T>
class Ledger {
 public:
  [[gnu::noinline]] void leak(std::size_t count) { kept_.push_back(filled<T>(count)); }

 private:
  std::vector<std::unique_ptr<T[]>> kept_;
};

class Cache {
 public:
  [[gnu::noinline]] void warm(std::size_t bytes) { kept_.push_back(filled<char>(bytes)); }

 private:
  std::vector<std::unique_ptr<char[]>> kept_;
};

[[gnu::noinline]] void serve(std::size_t bytes) {
  auto block = filled<char>(bytes);
  asm volatile("" : : "r"(block.get()) : "memory");
}

}  // namespace shop

int main() {
  constexpr int ticks = 400, rest = 1000, warm = 60, at_once = 10;
  constexpr long leaked = 120000, cached = 100000, request = 2 << 20;
  mallopt(M_MMAP_THRESHOLD, 128 << 10);
  std::getchar();
  shop::Ledger<int> ledger;
  shop::Cache cache;
  for (int tick = 0; tick < ticks + rest; tick++) {
    shop::serve(request);
    for (int i = 0; tick < warm && i < at_once; i++) cache.warm(cached);
    if (tick < ticks) ledger.leak(leaked / sizeof(int));
    if (tick == ticks) {
      std::printf("{\"leaked\": %ld, \"cached\": %ld, \"touched\": %ld}\n", ticks * leaked,
                  warm * at_once * cached, ticks * request);
      std::fflush(stdout);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}
