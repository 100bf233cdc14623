// SPDX-License-Identifier: MIT
// Hands a trained model from "Train it" to "Try it": one safetensors file, as vitcore's save_weights
// writes it, under one key of the browser's own database. Nothing leaves the machine.

const [DATABASE, STORE, KEY] = ["vit-book", "models", "trained"];

/** Keep a model's file (ArrayBuffer), in place of an earlier one. */
export function leaveModel(buffer) {
  return inStore("readwrite", (store) => store.put(buffer, KEY));
}

/** The file that was left, or undefined. */
export function takeModel() {
  return inStore("readonly", (store) => store.get(KEY));
}

function inStore(mode, act) {
  return new Promise((resolve, reject) => {
    const refused = () => reject(new Error("This browser keeps nothing for pages: a private window?"));
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onerror = refused;
    opening.onsuccess = () => {
      const database = opening.result;
      const deal = database.transaction(STORE, mode);
      const asked = act(deal.objectStore(STORE));
      deal.oncomplete = () => resolve(asked.result);
      deal.onabort = refused;
      database.onversionchange = () => database.close();
    };
  });
}
