// Runs a model of amstel's operators from an AOTInductor package, without Python:
//
//   program = torch.export.export(model, (x,))
//   torch._inductor.aoti_compile_and_package(program, package_path="model.pt2")
//   torch.save([[x], [model(x)]], "example.pt")     # inputs, and what shall come out
//
//   package model.pt2 example.pt
#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: package MODEL.pt2 EXAMPLE.pt\n";
    return 2;
  }
  std::ifstream file(argv[2], std::ios::binary);
  const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
  const auto example = torch::jit::pickle_load(bytes).toList();
  const auto tensors = [](const c10::IValue& list) {
    std::vector<at::Tensor> found;
    for (const c10::IValue& value : list.toListRef()) found.push_back(value.toTensor());
    return found;
  };
  const auto inputs = tensors(example.get(0)), expected = tensors(example.get(1));

  torch::inductor::AOTIModelPackageLoader model(argv[1]);
  const auto outputs = model.run(inputs);
  bool right = outputs.size() == expected.size();
  for (size_t k = 0; right && k < outputs.size(); ++k) {
    right = outputs[k].sizes() == expected[k].sizes() &&
            at::allclose(outputs[k], expected[k], 1e-4, 1e-5);
    std::cout << "output " << k << " " << outputs[k].sizes() << (right ? ": right\n" : ": wrong\n");
  }
  return right ? 0 : 1;
}
