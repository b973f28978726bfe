// Calls the CPU operators on tensors of a file, each in memory of exactly its size:
//
//     operators_driver CALLS RESULTS THREADS [SHORT]
//
// CALLS is a sequence of "NAME INPUTS OUTPUTS", then "RANK SIZE..." for every tensor, a newline, and the inputs, four
// bytes an element; RESULTS gets the outputs. SHORT floats are missing in the first output's memory.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <string>

#include "../mindcv_mnasnet/kernels/operators.cpp"

namespace {

using Operator = int (*)(int, void**, int*, int64_t**, const char**, void*, void*);
#define ENTRY(name) {#name, mnasnet_##name}
const std::map<std::string, Operator> kOperators = {
    ENTRY(norm_train), ENTRY(norm_infer), ENTRY(norm_add_train), ENTRY(norm_add_infer), ENTRY(norm_backward),
    ENTRY(quantized_norm_train), ENTRY(quantized_norm_infer), ENTRY(quantized_norm_backward),
    ENTRY(depthwise_train), ENTRY(depthwise_infer), ENTRY(depthwise_backward),
    ENTRY(quantized_depthwise_train), ENTRY(quantized_depthwise_infer), ENTRY(quantized_depthwise_backward),
    ENTRY(point_train), ENTRY(point_infer), ENTRY(point_backward),
    ENTRY(point_add_train), ENTRY(point_add_infer), ENTRY(point_add_backward),
    ENTRY(quantize_weight), ENTRY(quantize_weight_7), ENTRY(pool), ENTRY(spread), ENTRY(scale), ENTRY(scale_backward)};

bool call(std::istream& calls, std::ostream& results, int64_t missing) {
  std::string name;
  int inputs = 0, outputs = 0;
  if (!(calls >> name >> inputs >> outputs)) return false;
  const int count = inputs + outputs;
  std::vector<std::vector<int64_t>> shapes(count);
  std::vector<int> ranks(count);
  std::vector<int64_t*> sizes(count);
  std::vector<int64_t> bytes(count, 4);
  std::vector<void*> memory(count);
  for (int i = 0; i < count; ++i) {
    calls >> ranks[i];
    shapes[i].resize(ranks[i]);
    for (int64_t& size : shapes[i]) {
      calls >> size;
      bytes[i] *= size;
    }
    sizes[i] = shapes[i].data();
    memory[i] = std::calloc(1, bytes[i] - (i == inputs ? 4 * missing : 0));
  }
  calls.get();
  for (int i = 0; i < inputs; ++i) calls.read(static_cast<char*>(memory[i]), bytes[i]);
  const int code = kOperators.at(name)(count, memory.data(), ranks.data(), sizes.data(), nullptr, nullptr, nullptr);
  if (code != 0) {
    std::cerr << name << " returned " << code << "\n";
    std::exit(1);
  }
  for (int i = inputs; i < count; ++i) results.write(static_cast<const char*>(memory[i]), bytes[i]);
  for (void* one : memory) std::free(one);
  return true;
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) return 2;
  std::ifstream calls(words[1], std::ios::binary);
  std::ofstream results(words[2], std::ios::binary);
  mnasnet_set_threads(std::atoi(words[3]));
  while (call(calls, results, count > 4 ? std::atoi(words[4]) : 0)) {
  }
  return results ? 0 : 1;
}
