// Reads a checkpoint or safetensors file and writes what it read, for the Python tests that compare with
// PyTorch:
//   io_tool IN OUT
// Both names end in .pt or both in .safetensors.

#include <exception>
#include <iostream>
#include <string>

#include "io/checkpoint.h"
#include "io/safetensors.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: io_tool IN OUT\n";
    return 2;
  }
  const std::string in = argv[1], out = argv[2];
  try {
    if (in.ends_with(".safetensors")) {
      const lohe::io::SafetensorsFile file = lohe::io::load_safetensors(in);
      lohe::io::save_safetensors({file.tensors.begin(), file.tensors.end()}, file.metadata, out);
    } else {
      lohe::io::save(lohe::io::load(in, {.mmap = true}), out);
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
