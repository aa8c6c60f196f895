#pragma once
// The verbs of the program. Each gets the whole command line and the index of its first own word;
// returns the exit status; throws UsageError (status 2) or another exception (status 1).

namespace seer::cli {

int run(int argc, char** argv, int first);
int distill(int argc, char** argv, int first);
int finetune(int argc, char** argv, int first);
int pretrain(int argc, char** argv, int first);
int eval_ppl(int argc, char** argv, int first);
int eval_recall(int argc, char** argv, int first);
int eval_facts(int argc, char** argv, int first);
int eval_copies(int argc, char** argv, int first);
int eval_needle(int argc, char** argv, int first);
int eval_heads(int argc, char** argv, int first);
int eval_attention(int argc, char** argv, int first);
int report(int argc, char** argv, int first);
int generate(int argc, char** argv, int first);
int logits(int argc, char** argv, int first);
int tokenize(int argc, char** argv, int first);
int kernels(int argc, char** argv, int first);
int bench(int argc, char** argv, int first);

}  // namespace seer::cli
