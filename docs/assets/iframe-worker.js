// A Worker for pages that were opened from a file, where browsers allow none: its script runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      // Messages of the script in the frame go to this page, as those of a worker do.
      inside.postMessage = (data) => this.#receive(data);
      inside.importScripts = (...urls) =>
        urls.reduce((before, next) => before.then(() => this.#load(inside, next)), Promise.resolve());
      this.ready = this.#load(inside, url);
      this.inside = inside;
    }

    #load(inside, url) {
      return new Promise((resolve, reject) => {
        const script = inside.document.createElement("script");
        script.src = new URL(url, document.baseURI);
        script.onload = resolve;
        script.onerror = reject;
        inside.document.body.append(script);
      });
    }

    #receive(data) {
      this.dispatchEvent(new MessageEvent("message", { data }));
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
