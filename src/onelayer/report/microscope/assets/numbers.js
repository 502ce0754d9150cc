// The numbers of the page: one packed block a checkpoint, unpacked when it is first looked at.

export class Numbers {
  constructor(about) {
    this.about = about;
    this.views = new Map(about.views.map((view) => [view.name, view]));
    this.blocks = new Map();
    this.loading = new Map();
    this.example = 0;
    this.token = 0; // 0: the whole loss; 1 + r: the loss of the r-th position that is read
  }

  // Unpack the checkpoint at this place in the list, and show it from now on.
  async show(step) {
    this.wanted = step;
    if (!this.blocks.has(step)) {
      if (!this.loading.has(step)) this.loading.set(step, unpack(document.getElementById(`block-${step}`).textContent));
      this.blocks.set(step, split(await this.loading.get(step), this.about));
      this.loading.delete(step);
    }
    if (this.wanted === step) this.block = this.blocks.get(step);
    return this.wanted === step;
  }

  number(at) {
    return this.block.numbers[this.example * this.about.stride + at];
  }

  index(at) {
    return this.block.indices[this.example * this.about.index_stride + at];
  }

  // Where a view's side begins for the loss that is looked at; values do not hang on it.
  start(rule, starts = rule.at) {
    return starts[starts.length > 1 ? this.token : 0];
  }

  // index: {h, t, s, k, d, f, v}, positions counted from the sequence's beginning.
  flat(view, index) {
    let flat = 0;
    [...view.axes].forEach((letter, i) => {
      const offset = letter === position(view) ? view.first : 0;
      flat = flat * view.shape[i] + index[letter] - offset;
    });
    return flat;
  }

  read(name, side, index) {
    const view = this.views.get(name);
    return this.number(this.start(view[side]) + this.flat(view, index));
  }

  // The last axis of a view at an index.
  row(name, side, index) {
    const view = this.views.get(name);
    const last = view.axes.at(-1);
    const at = this.start(view[side]) + this.flat(view, { ...index, [last]: 0 });
    return Array.from({ length: view.shape.at(-1) }, (_, i) => this.number(at + i));
  }

  size(name, letter) {
    const view = this.views.get(name);
    return view.shape[view.axes.indexOf(letter)];
  }

  // The positions that a view has rows for: [5, 6, 7] where a loss reads the last three of eight.
  positions(name) {
    const view = this.views.get(name);
    return Array.from({ length: this.size(name, position(view)) }, (_, i) => view.first + i);
  }

  has(name, side) {
    return Boolean(this.views.get(name)?.[side]);
  }

  tokens(stack) {
    const example = this.about.examples[this.example];
    return stack === "encoder." && example.source ? example.source : example.tokens;
  }
}

// The letter that counts a view's rows: t, or s in what belongs to the one who is looked at.
export const position = (view) => (view.axes.includes("t") ? "t" : "s");

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function split(bytes, about) {
  const numbers = about.stride * about.examples.length;
  const indices = about.index_stride * about.examples.length;
  return {
    numbers: new Float32Array(gathered(bytes, 0, numbers, 4).buffer),
    indices: new Uint16Array(gathered(bytes, 4 * numbers, indices, 2).buffer),
  };
}

// From all first bytes, all second bytes … to number after number.
function gathered(bytes, start, count, width) {
  const out = new Uint8Array(count * width);
  for (let byte = 0; byte < width; byte++)
    for (let i = 0; i < count; i++) out[i * width + byte] = bytes[start + byte * count + i];
  return out;
}
